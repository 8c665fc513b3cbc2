"""DataLoader: every sample once an epoch, pairs kept, epochs independent."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from helpers import refusal, traced_memory
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import DataLoader
from tinygrad_mnist.data.transforms import random_affine, random_shift

LOADERS = st.fixed_dictionaries(
    {
        "batch_size": st.sampled_from([None, 1, 2, 3, 7, 50]),
        "shuffle": st.booleans(),
        "drop_last": st.booleans(),
        "rng": st.integers(0, 99),
    }
)
SIZES = st.sampled_from([0, 1, 2, 7, 21, 22])


def pairs(n):
    """Inputs (n, 2) and targets (n,) that tell which sample they are."""
    return np.stack([np.arange(n), -np.arange(n)], axis=1), np.arange(n) * 10


def test_it_shows_its_shapes_and_settings():
    shown = "inputs of (3, 2), targets of (3,), batch_size=2, shuffle=True, drop_last=False"
    assert repr(DataLoader(*pairs(3), batch_size=2, shuffle=True)) == f"DataLoader({shown})"


@given(n=SIZES, settings=LOADERS)
def test_every_sample_once_with_its_own_target(n, settings):
    x, t = pairs(n)
    loader = DataLoader(x, t, **settings)
    epoch = list(loader)
    assert len(epoch) == len(loader)
    size = settings["batch_size"]
    if size is None:
        assert all(a.shape == (2,) for a, _ in epoch)
        epoch = [(a[None], np.array([b])) for a, b in epoch]
    seen = np.concatenate([a for a, _ in epoch] or [x[:0]])
    targets = np.concatenate([b for _, b in epoch] or [t[:0]])
    np.testing.assert_array_equal(seen[:, 0] * 10, targets)
    np.testing.assert_array_equal(seen[:, 0], -seen[:, 1])
    kept = n - n % (size or 1) if settings["drop_last"] else n
    assert len(seen) == len(set(targets.tolist())) == kept
    if not settings["shuffle"]:
        np.testing.assert_array_equal(seen, x[:kept])
    assert all(len(a) == (size or 1) for a, _ in epoch[:-1])


@given(n=st.sampled_from([7, 20]), settings=LOADERS)
def test_iterators_are_fresh_and_independent(n, settings):
    x, t = pairs(n)
    one, twin = DataLoader(x, t, **settings), DataLoader(x, t, **settings)
    first = [b.tolist() for _, b in one]
    next(iter(one), None)  # an epoch broken off
    third = [b.tolist() for _, b in one]
    interleaved = list(zip(iter(twin), iter(twin), iter(twin), strict=True))
    assert first == [a[1].tolist() for a, _, _ in interleaved]
    assert third == [c[1].tolist() for _, _, c in interleaved]


@pytest.mark.parametrize("batch_size", [None, 3])
def test_an_order_is_drawn_when_its_epoch_begins_not_at_the_first_pair(batch_size):
    x, t = pairs(20)
    one, twin = (DataLoader(x, t, batch_size, shuffle=True, rng=1) for _ in range(2))
    first, second = iter(one), iter(one)
    second = [b.tolist() for _, b in second]
    first = [b.tolist() for _, b in first]
    assert first == [b.tolist() for _, b in twin]
    assert second == [b.tolist() for _, b in twin]


@pytest.mark.parametrize("batch_size", [None, 1, 50])
def test_orders_change_with_the_epoch_and_repeat_with_the_seed(batch_size):
    x, t = pairs(50)
    loader = DataLoader(x, t, batch_size, shuffle=True, rng=1)
    first, second = (np.hstack([b for _, b in loader]).tolist() for _ in range(2))
    assert first != second
    assert first != t.tolist()
    assert sorted(first) == t.tolist()
    again = DataLoader(x, t, batch_size, shuffle=True, rng=np.random.default_rng(1))
    assert np.hstack([b for _, b in again]).tolist() == first
    unseeded = [next(iter(DataLoader(x, t, 50, shuffle=True)))[1].tolist() for _ in range(2)]
    assert unseeded[0] != unseeded[1]


def test_samples_are_shuffled_not_whole_batches():
    x, t = pairs(60)
    batches = [b for _, b in DataLoader(x, t, 10, shuffle=True, rng=0)]
    assert all(np.ptp(b) > 90 for b in batches)


@pytest.mark.parametrize("batch_size", [None, 3])
def test_unshuffled_pairs_are_read_only_views(batch_size):
    x, t = np.zeros((7, 2)), np.zeros((7, 3))
    for a, b in DataLoader(x, t, batch_size):
        assert np.shares_memory(a, x)
        assert np.shares_memory(b, t)
        with pytest.raises(ValueError, match="read-only"):
            a[0] = 1
    x[0] = 1  # the caller's arrays stay writeable


def test_a_shuffled_batch_cannot_change_the_data():
    x, t = np.zeros((6, 2)), np.zeros(6)
    for a, b in DataLoader(x, t, 2, shuffle=True):
        a[...], b[...] = 1, 1
    assert not x.any()
    assert not t.any()


def test_batches_are_of_one_sample_unless_told_otherwise():
    assert [(a.tolist(), b.tolist()) for a, b in DataLoader([1, 2], [3, 4])] == [
        ([1], [3]),
        ([2], [4]),
    ]


def test_lists_are_data_too():
    assert [(a.tolist(), b.tolist()) for a, b in DataLoader([[1], [2], [3]], [4, 5, 6], 2)] == [
        ([[1], [2]], [4, 5]),
        ([[3]], [6]),
    ]


def test_a_memmap_is_read_as_it_is_needed(tmp_path):
    # a sparse file of 4 TB: any attempt to read it in would fail
    x = np.memmap(tmp_path / "x", np.uint8, "w+", shape=(2**32, 1024))
    t = np.memmap(tmp_path / "t", np.uint8, "w+", shape=2**32)
    x[5] = 9
    loader = DataLoader(x, t, batch_size=2)
    assert len(loader) == 2**31
    *_, (a, b) = itertools.islice(loader, 3)
    assert a.tolist() == [[0] * 1024, [9] * 1024]
    assert b.shape == (2,)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_pairs_of_a_memmap_are_views_of_the_map_and_shuffled_batches_copies(tmp_path, batch_size):
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(6, 3))
    x[:] = np.arange(18).reshape(6, 3)
    t = np.arange(6)
    for shuffle in (False, True):
        for a, b in DataLoader(x, t, batch_size, shuffle, rng=0):
            np.testing.assert_array_equal(a, x[b])
            # a shuffled bare sample is a row of the map, chosen by its index: a view, too
            assert np.shares_memory(a, x) == (not shuffle or batch_size is None)


@pytest.mark.parametrize("batch_size", [None, 1, 2])
@pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"drop_last": True}], ids=str)
def test_an_empty_part_of_a_memmap_yields_nothing(tmp_path, batch_size, options):
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(6, 3))
    loader = DataLoader(x[:0], x[:0], batch_size, **options)
    assert list(loader) == []
    assert len(loader) == 0


def test_a_shuffled_memmap_takes_no_more_memory_than_its_order_and_a_batch(tmp_path):
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(10_000, 1000))  # 40 MB, as a sparse file
    with traced_memory() as memory:
        for a, _ in itertools.islice(DataLoader(x, np.zeros(10_000), 50, shuffle=True), 5):
            assert a.shape == (50, 1000)
    assert memory.peak < 1_000_000


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "text"),
    [
        (((5, 2), 4), {}, ValueError, "as many targets as inputs (5), got 4"),
        ((5, 5), {"batch_size": 0}, ValueError, "batch_size to be an integer >= 1, got 0"),
        ((5, 5), {"batch_size": -1}, ValueError, "batch_size to be an integer >= 1, got -1"),
        ((5, 5), {"batch_size": 2.5}, TypeError, "batch_size to be an integer >= 1, got 2.5"),
        ((5, 5), {"batch_size": True}, TypeError, "batch_size to be an integer >= 1, got True"),
        ((5, 5), {"batch_size": "2"}, TypeError, "batch_size to be an integer >= 1, got '2'"),
        ((5, 5), {"shuffle": 1}, TypeError, "shuffle to be a bool, got 1"),
        ((5, 5), {"drop_last": None}, TypeError, "drop_last to be a bool, got None"),
        (
            (5, 5),
            {"rng": 0.5},
            TypeError,
            "rng to be a seed, a numpy.random.Generator or None, got 0.5",
        ),
        (
            ((), 5),
            {},
            TypeError,
            "inputs with a first axis, got an array of shape () and dtype float64",
        ),
    ],
)
def test_refusals(args, kwargs, error, text):
    with refusal(error, f"DataLoader: expected {text}"):
        DataLoader(np.zeros(args[0]), np.zeros(args[1]), **kwargs)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ((i for i in range(3)), "to be an array of real numbers, got a generator"),
        (map(abs, [1]), "to be an array of real numbers, got a map"),
        (3, "with a first axis, got 3"),
        (None, "to be an array of real numbers, got None"),
        ("abc", "to be an array of real numbers, got 'abc'"),
        (
            np.array([None, 1]),
            "to be an array of real numbers, got an array of dtype object",
        ),
        (np.ma.masked_array([1, 2]), "to be an array of real numbers, got a masked array"),
        ({1, 2}, "to be an array of real numbers, got a set"),
    ],
)
def test_what_has_no_length_or_no_numbers_is_refused(bad, text):
    for name, args in (("inputs", (bad, [1])), ("targets", ([1], bad))):
        with refusal(TypeError, f"DataLoader: expected {name} {text}"):
            DataLoader(*args)


# transforms


def noisy(x, rng):
    return x + rng.random(np.shape(x))


def flat(x, rng):
    return np.reshape(x, (len(x), -1))


@given(n=SIZES, settings=LOADERS)
def test_a_transform_is_called_with_the_inputs_of_each_pair_and_the_generator(n, settings):
    x, t = pairs(n)
    loader, twin = DataLoader(x, t, **settings, transform=noisy), DataLoader(x, t, **settings)
    for _ in range(2):  # an epoch draws its order, then what the transform draws, pair by pair
        wanted = [(a + twin.rng.random(np.shape(a)), b) for a, b in twin]
        found = list(loader)
        assert len(found) == len(loader) == len(wanted)
        for pair, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(pair[0], other[0], strict=True)
            np.testing.assert_array_equal(pair[1], other[1], strict=True)
    assert loader.rng.random() == twin.rng.random()


def test_a_transform_runs_when_its_pair_is_asked_for():
    seen = []
    loader = DataLoader(np.arange(6), np.arange(6), 2, transform=lambda x, rng: seen.append(x) or x)
    epoch = iter(loader)
    assert not seen
    next(epoch)
    next(epoch)
    assert [x.tolist() for x in seen] == [[0, 1], [2, 3]]


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_transform_is_given_a_read_only_view_or_a_copy_of_its_own(batch_size):
    data = np.arange(12.0).reshape(6, 2)

    def clear(x, rng):
        x[...] = 0
        return x

    with pytest.raises(ValueError, match="read-only"):
        next(iter(DataLoader(data, data, batch_size, transform=clear)))
    loader = DataLoader(data, data, 2, shuffle=True, transform=clear)
    assert all(not x.any() and t.any() for x, t in loader)
    assert data.sum() == 66


def test_what_a_transform_returns_is_yielded():
    x, t = np.zeros((5, 4, 3)), np.arange(5)
    assert [a.shape for a, _ in DataLoader(x, t, 2, transform=flat)] == [(2, 12), (2, 12), (1, 12)]
    made = np.ones((5, 7), np.float16)
    ((found, _),) = DataLoader(x, t, 5, transform=lambda x, rng: made)
    assert found is made
    ((found, _),) = DataLoader(x, t, 5, transform=lambda x, rng: [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(found, [1, 2, 3, 4, 5], strict=True)
    bare = [a.tolist() for a, _ in DataLoader(x, t, None, transform=lambda x, rng: x[0, :2])]
    assert bare == [[0, 0]] * 5


def test_a_transform_of_a_memmap_reads_as_it_goes(tmp_path):
    x = np.memmap(tmp_path / "x", np.uint8, "w+", shape=(2**32, 1024))
    loader = DataLoader(x, np.broadcast_to(3, 2**32), 2, transform=lambda x, rng: x + 1.5)
    ((a, _),) = itertools.islice(loader, 1)
    np.testing.assert_array_equal(a, np.full((2, 1024), 1.5), strict=True)


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        (3, "3"),
        ("flat", "'flat'"),
        ([noisy], "a list"),
        (np.zeros(2), "an array of shape (2,) and dtype float64"),
        (dict, "the class dict"),
    ],
    ids=lambda value: str(value)[:9],
)
def test_what_is_no_transform_is_refused_whenever_it_is_set(bad, found):
    text = f"DataLoader: expected transform to be a function of (x, rng), or None, got {found}"
    with refusal(TypeError, text):
        DataLoader([1], [2], transform=bad)
    loader = DataLoader([1], [2], transform=noisy)
    with refusal(TypeError, text):
        loader.transform = bad
    assert loader.transform is noisy


@pytest.mark.parametrize(
    ("transform", "found"),
    [
        (lambda x, rng: x[1:], "(2, 4)"),
        (lambda x, rng: np.concatenate([x, x]), "(6, 4)"),
        (lambda x, rng: x.ravel(), "(12,)"),
        (lambda x, rng: x.sum(), "()"),
    ],
    ids=["fewer", "more", "flat", "none"],
)
def test_a_transform_that_returns_another_number_of_samples_is_refused(transform, found):
    contract = "transform to return as many samples as it was given (3)"
    with refusal(ValueError, f"DataLoader: expected {contract}, got {found}"):
        next(iter(DataLoader(np.zeros((5, 4)), np.zeros(5), 3, transform=transform)))


@pytest.mark.parametrize("make", [lambda: random_shift(1), random_affine])
@pytest.mark.parametrize("shape", [(6, 4, 5), (6, 20), (6,)])
def test_batches_of_images_without_channels_are_not_taken_for_one_image(make, shape):
    """Rows would move from one image to the next, away from their labels."""
    text = f"DataLoader: expected inputs of 4 axes or more for this transform, got {shape}"
    for copied in (lambda x: x, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        loader = DataLoader(np.ones(shape), np.arange(6), 3, transform=copied(make()))
        with refusal(ValueError, text) as caught:
            next(iter(loader))
        assert "`images[..., None]`" in caught.value.__notes__[0]


@pytest.mark.parametrize("make", [lambda: random_shift(1), random_affine])
def test_images_with_channels_are_transformed_in_batches_and_one_by_one(make):
    for batch_size, shape in ((3, (3, 4, 5, 1)), (None, (4, 5, 1))):
        loader = DataLoader(np.ones((6, 4, 5, 1)), np.arange(6), batch_size, transform=make())
        assert [x.shape for x, _ in loader] == [shape] * len(loader)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_transform_that_forgets_to_return_is_refused(batch_size):
    text = "DataLoader: expected transform's array to be an array of real numbers, got None"
    with refusal(TypeError, text):
        next(iter(DataLoader([[1], [2]], [3, 4], batch_size, transform=lambda x, rng: None)))


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda loader: pickle.loads(pickle.dumps(loader))]
)
@pytest.mark.parametrize("make", [lambda: noisy, lambda: random_shift(1)])
def test_copies_transform_alike(copied, make):
    loader = DataLoader(np.ones((4, 3, 3, 1)), np.zeros(4), 2, True, rng=1, transform=make())
    for (a, _), (b, _) in zip(copied(loader), loader, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def test_settings_count_from_the_next_epoch_on():
    loader = DataLoader(*pairs(5), batch_size=2)
    assert [len(b) for _, b in loader] == [2, 2, 1]
    loader.batch_size, loader.drop_last = 3, True
    assert [len(b) for _, b in loader] == [3]
    loader.batch_size, loader.drop_last = None, False
    assert [b.tolist() for _, b in loader] == [0, 10, 20, 30, 40]
    loader.shuffle = True
    assert sorted(b.tolist() for _, b in loader) == [0, 10, 20, 30, 40]
    loader.shuffle = False
    running = iter(loader)
    loader.transform = noisy
    assert [a.tolist() for a, _ in running] == pairs(5)[0].tolist()
    assert next(iter(loader))[0][0] > 0


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda loader: pickle.loads(pickle.dumps(loader))]
)
def test_copies_are_read_only_too_and_carry_the_generator(copied):
    loader = DataLoader(np.zeros((4, 2)), np.zeros(4), 2, rng=1)
    twin = copied(loader)
    assert not next(iter(twin))[0].flags.writeable
    assert twin.rng.random() == loader.rng.random()
