"""Checkpoints: what goes in comes out, whatever is done to the file, and nothing half-way."""

import io
import json
import os
import pathlib
import pickle
import random
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from helpers import bits, refusal, refusal_starting, run_python
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import (
    SGD,
    Adam,
    AdamW,
    DataLoader,
    Dropout,
    Linear,
    MSELoss,
    ReLU,
    Sequential,
)
from tinygrad_mnist.data.transforms import random_shift
from tinygrad_mnist.training import History, checkpoint
from tinygrad_mnist.training.checkpoint import CheckpointError


class Everything:
    """A small run: each object that a checkpoint holds, drawn from a seed."""

    def __init__(self, seed, dtype=np.float32, features=3, momentum=0.9):
        rng = np.random.default_rng(seed)
        self.model = Sequential(
            Linear(4, features, rng=rng, dtype=dtype),
            ReLU(),
            Dropout(0.5, rng=np.random.Generator(np.random.MT19937(seed))),
            Linear(features, 2, rng=rng, dtype=dtype),
            Dropout(0.1, rng=np.random.Generator(np.random.Philox(seed))),
        )
        self.optimizer = SGD(self.model.parameters(), lr=0.1 + seed / 100, momentum=momentum)
        inputs, targets = np.eye(7, 4), np.eye(7, 2)
        self.loader = DataLoader(inputs, targets, batch_size=3, shuffle=True, rng=rng)
        self.history = History([{"epoch": i, "loss": rng.random()} for i in range(seed)])

    def train(self):
        loss = MSELoss()
        for x, t in self.loader:
            loss(self.model(x), t)
            self.optimizer.zero_grad()
            self.model.backward(loss.backward())
            self.optimizer.step()
        self.history.records.append({"epoch": 0, "loss": 0.5})
        return self

    def objects(self):
        return self.model, self.optimizer, self.loader, self.history

    def state(self):
        """Return all of it as a string of every bit, generators included."""
        optimizer = self.optimizer.state_dict()
        arrays = [*self.model.state_dict().values(), *optimizer.pop("velocities")]
        holders = (self.model[2], self.model[4], self.loader)
        generators = [holder.rng.bit_generator.state for holder in holders]
        return repr(([a.tobytes() for a in arrays], optimizer, generators, self.history.records))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a checkpoint's path, its bytes, and the state that it holds."""
    path = tmp_path_factory.mktemp("checkpoint") / "run.npz"
    one = Everything(3).train()
    checkpoint.save(path, *one.objects(), epoch=5, note="five")
    return path, path.read_bytes(), one.state()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_everything_comes_back_and_goes_on_alike(tmp_path, dtype):
    one, other = Everything(3, dtype).train(), Everything(5, dtype)
    checkpoint.save(tmp_path / "a.npz", *one.objects(), epoch=7)
    assert checkpoint.load(tmp_path / "a.npz", *other.objects()) == {"epoch": 7}
    assert other.state() == one.state()
    assert other.train().state() == one.train().state()


def test_a_state_without_momentum_and_without_a_step(tmp_path):
    one, other = Everything(3, momentum=0.0), Everything(5)
    checkpoint.save(tmp_path / "a.npz", *one.objects())
    checkpoint.load(tmp_path / "a.npz", *other.objects())
    assert other.state() == one.state()


def test_meta_keeps_its_types(tmp_path):
    model = Linear(2, 2, rng=0)
    meta = {
        "text": "a/b \u00e9\ud800",
        "nothing": None,
        "truth": True,
        "number": 10**30,
        "fraction": 0.1,
        "nested": {"a/b": [1, (2.5, "x")], "a": {"b": (), "dict": []}, "array": {}, "": 1},
    }
    checkpoint.save(tmp_path / "a.npz", model, **meta, numpy=np.float32(0.25), count=np.int64(3))
    loaded = checkpoint.load(tmp_path / "a.npz")
    assert loaded == {**meta, "numpy": 0.25, "count": 3}
    assert (type(loaded["numpy"]), type(loaded["count"])) == (float, int)
    assert isinstance(loaded["nested"]["a/b"][1], tuple)
    assert loaded["truth"] is True


def test_arrays_in_meta_keep_shape_dtype_and_values(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [
        rng.random((2, 3)),
        rng.integers(0, 9, (2, 0, 3), dtype=np.uint8),
        np.array(True),
        np.asfortranarray(rng.random((3, 2), dtype=np.float32)),
        rng.random(4).astype(">f8"),
        np.array([np.nan, -np.inf, -0.0], np.float16),
    ]
    nested = {"a/b": arrays[0], "a": {"b": arrays[1]}}
    checkpoint.save(tmp_path / "a.npz", Linear(1, 1), arrays=arrays, nested=nested)
    meta = checkpoint.load(tmp_path / "a.npz")
    found = [*meta["arrays"], meta["nested"]["a/b"], meta["nested"]["a"]["b"]]
    for array, loaded in zip([*arrays, *arrays[:2]], found, strict=True):
        assert loaded.dtype == array.dtype
        assert loaded.shape == array.shape
        assert loaded.tobytes() == array.tobytes()
        assert loaded.flags.writeable


class Slotted:
    __slots__ = "rng"

    def __init__(self, rng):
        self.rng = rng


def test_other_generators_come_back(tmp_path):
    def model(seed):
        layer = Dropout(0.5, rng=np.random.Generator(np.random.SFC64(seed)))
        layer.others = {"python": random.Random(seed), "old": np.random.RandomState(seed)}
        layer.others["python"].gauss()  # draws two, and keeps one
        layer.slotted = Slotted(np.random.default_rng(seed))
        return Sequential(Linear(2, 2, rng=0), layer)

    one, other = model(1), model(2)
    for m in (one, other):
        optimizer = SGD(m.parameters(), lr=0.1)
        if m is one:
            checkpoint.save(tmp_path / "a.npz", m, optimizer)
        else:
            m[1].others["python"].gauss()
            checkpoint.load(tmp_path / "a.npz", m, optimizer)
    drawn = [
        (
            m[1].rng.random(),
            m[1].others["python"].gauss(),
            m[1].others["old"].rand(),
            m[1].slotted.rng.random(),
        )
        for m in (one, other)
    ]
    assert drawn[0] == drawn[1]


def test_generators_of_modules_and_classes_are_not_the_models(tmp_path):
    class Shared:
        rng = np.random.default_rng(0)

    model = Linear(1, 1)
    model.numpy, model.kind = np.random, Shared
    checkpoint.save(tmp_path / "a.npz", model, SGD(model.parameters(), lr=0.1))
    drawn = Shared.rng.random(), np.random.random_sample()  # noqa: NPY002
    checkpoint.load(tmp_path / "a.npz", model, SGD(model.parameters(), lr=0.1))
    assert (Shared.rng.random(), np.random.random_sample()) != drawn  # noqa: NPY002


def test_a_model_alone_gets_its_parameters_and_keeps_its_generators(saved):
    path, _, _ = saved
    one, other = Everything(3).train(), Everything(5)
    masks = str(other.model[2].rng.bit_generator.state)
    checkpoint.load(path, other.model)
    assert bits(other.model.state_dict()) == bits(one.model.state_dict())
    assert str(other.model[2].rng.bit_generator.state) == masks


def test_numpy_reads_a_checkpoint(saved):
    path, _, _ = saved
    with np.load(path) as arrays:
        weight = arrays["model/0.weight"]
    assert np.array_equal(weight, Everything(3).train().model[0].weight.data)


@given(data=st.data())
def test_a_flipped_byte_is_noticed_or_harmless(saved, data):
    path, content, state = saved
    at = data.draw(st.integers(0, len(content) - 1), "position")
    flipped = data.draw(st.integers(1, 255), "xor")
    check_damaged(
        path.with_name("damaged.npz"),
        content[:at] + bytes([content[at] ^ flipped]) + content[at + 1 :],
        state,
    )


@given(data=st.data())
def test_a_truncated_file_is_noticed(saved, data):
    path, content, _ = saved
    damaged = path.with_name("damaged.npz")
    damaged.write_bytes(content[: data.draw(st.integers(0, len(content) - 1), "length")])
    assert_refused(damaged, "")


@given(data=st.data())
def test_bytes_overwritten_or_repeated_are_noticed_or_harmless(saved, data):
    path, content, state = saved
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), "seed"))
    at, length = rng.integers(0, len(content)), rng.integers(1, 64)
    other = content[rng.integers(0, len(content)) :][:length]
    check_damaged(
        path.with_name("damaged.npz"),
        content[:at] + other + content[at + length * rng.integers(0, 2) :],
        state,
    )


def check_damaged(path, content, state):
    path.write_bytes(content)
    other = Everything(5)
    before = other.state()
    try:
        meta = checkpoint.load(path, *other.objects())
    except CheckpointError:
        assert other.state() == before
    else:
        assert other.state() == state
        assert meta == {"epoch": 5, "note": "five"}


def rewritten(path, content, **members):
    """Write the checkpoint's content to path with some members replaced."""
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            name = info.filename.removesuffix(".npy")
            new.writestr(info.filename, members.get(name, old.read(info)))
    return path


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def tree_with(content, change):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        tree = json.loads(np.load(io.BytesIO(archive.read("tree.npy"))).tobytes())
    change(tree["dict"])
    return npy(np.frombuffer(json.dumps(tree).encode(), np.uint8))


def huge_header():
    """Return an array of 24 bytes that claims 800 GB."""
    claim = b"(100000000000,), }"
    return npy(np.zeros(3)).replace(b"(3,), }".ljust(len(claim)), claim)


CHANGES = {
    "newer": (
        lambda d: d.update(version=2),
        "format 'tinygrad_mnist checkpoint', version 2: not 1",
    ),
    "foreign": (lambda d: d.update(format="else"), "format 'else', version 1: not 1"),
    "no history": (lambda d: d.update(history={"dict": {}}), "a dict instead of a list of records"),
    "records": (lambda d: d.update(history=[1]), "something else than numbers by name as record 1"),
    "no optimizer": (lambda d: d.update(optimizer=None), "SGD: expected a state dict, got None"),
    "no loader": (lambda d: d.update(loader=None), "a loader with None, not {'samples': 7"),
    "generator": (
        lambda d: d["generators"]["dict"]["model"][0]["dict"].update(bit_generator="PCG64"),
        "a state of another generator than dict",
    ),
    "generator's position": (
        lambda d: d["generators"]["dict"]["model"][0]["dict"]["state"]["dict"].update(pos=2**30),
        "a state with pos = 1073741824",
    ),
    "generator's buffer": (
        lambda d: d["generators"]["dict"]["model"][1]["dict"].update(buffer_pos=-1),
        "a state with buffer_pos = -1",
    ),
    "generator's flag": (
        lambda d: d["generators"]["dict"]["loader"][0]["dict"].update(has_uint32=True),
        "a state of another generator than dict",
    ),
    "no meta": (lambda d: d.update(meta=None), "None as meta"),
    "meta of another kind": (lambda d: d.update(meta={"set": {}}), "a set in its tree"),
    "generators": (
        lambda d: d["generators"]["dict"]["model"].pop(),
        "1 random generators for the model, which holds 2",
    ),
    "rate": (
        lambda d: d["optimizer"]["dict"].update(lr=-1),
        r"SGD: expected lr in [0, inf), got -1",
    ),
    "parameter": (
        lambda d: d["model"]["dict"].pop("0.bias"),
        "Sequential: expected a state dict of its parameters, got no 0.bias",
    ),
    "an array that is not there": (
        lambda d: d["model"]["dict"].update({"0.bias": {"array": "x"}}),
        "'x'",
    ),
    "nonsense": (lambda d: d.clear(), "format None, version None: not 1"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_tree_is_refused(saved, tmp_path, name):
    _, content, _ = saved
    change, found = CHANGES[name]
    path = rewritten(tmp_path / "a.npz", content, tree=tree_with(content, change))
    assert_refused(path, found)


ARRAYS = {
    "shape": (npy(np.zeros((3, 4), np.float32)), "0.weight of shape (3, 4) instead of (4, 3)"),
    "dtype": (npy(np.zeros((4, 3))), "0.weight of float64, not float32"),
    "800 GB": (huge_header(), ""),
    "text": (npy(np.array(["a"])), "0.weight.npy, which is no array of numbers"),
    "more": (
        npy(np.zeros((4, 3), np.float32)) + b"x",
        "0.weight.npy, which is longer than its array",
    ),
    "pickle": (
        npy(np.array([{}], object)),
        "0.weight.npy, which is no array of numbers",
    ),
    "no array": (b"hello", "0.weight.npy, which is no array of numbers"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_a_changed_array_is_refused(saved, tmp_path, name):
    _, content, _ = saved
    member, found = ARRAYS[name]
    path = rewritten(tmp_path / "a.npz", content, **{"model/0.weight": member})
    assert_refused(path, found)


def assert_refused(path, found):
    other = Everything(5)
    before = other.state()
    with refusal_starting(CheckpointError, f"checkpoint.load: expected {path} to ") as caught:
        checkpoint.load(path, *other.objects())
    assert found in str(caught.value)
    assert other.state() == before


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "File is not a zip file"),
        (b"hello world", "File is not a zip file"),
        (pickle.dumps({"model": {}}), "File is not a zip file"),
        (None, "an archive of something else"),
    ],
)
def test_other_files_are_refused(tmp_path, content, found):
    path = tmp_path / "a.npz"
    if content is None:
        np.savez(path, weight=np.zeros(3))
    else:
        path.write_bytes(content)
    assert_refused(path, found)


def test_a_compressed_member_is_refused_unopened(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tree.npy", b"short")
    assert_refused(path, "tree.npy compressed")


def test_a_member_that_claims_gigabytes_is_refused_unread(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tree.npy", b"short")
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")  # of the directory: sizes from byte 20
    content[entry + 20 : entry + 28] = b"\xf0\xff\xff\xff" * 2
    path.write_bytes(content)
    assert_refused(path, "members larger than the file")


def test_another_model_is_refused(saved):
    path, _, _ = saved
    other = Everything(5, features=4)
    before = other.state()
    with pytest.raises(CheckpointError, match=r"velocities\[0\] of shape"):
        checkpoint.load(path, *other.objects())
    assert other.state() == before


def test_the_state_of_another_kind_of_optimizer_is_refused_even_if_it_has_the_same_keys(tmp_path):
    """AdamW's weight_decay is not Adam's."""
    model, path = Linear(3, 2, rng=0), tmp_path / "run.npz"
    checkpoint.save(path, model, AdamW(model.parameters(), weight_decay=0.5))
    other = Adam(model.parameters())
    text = f"checkpoint.load: expected {path} to fit, got the state of AdamW, not of Adam"
    with refusal(CheckpointError, text):
        checkpoint.load(path, model, other)
    assert other.weight_decay == 0
    checkpoint.load(path, model, same := AdamW(model.parameters()))
    assert same.weight_decay == 0.5


def test_a_file_that_does_not_say_which_kind_its_optimizer_was_is_read(saved, tmp_path):
    """As those of the first version."""
    _, content, state = saved
    tree = tree_with(content, lambda d: d.pop("optimizer_kind"))
    other = Everything(5)
    checkpoint.load(rewritten(tmp_path / "a.npz", content, tree=tree), *other.objects())
    assert other.state() == state


def test_other_settings_of_the_loader_are_refused(saved):
    path, _, _ = saved
    other = Everything(5)
    other.loader.batch_size = 2
    with pytest.raises(CheckpointError, match="'batch_size': 3.*, not .*'batch_size': 2"):
        checkpoint.load(path, *other.objects())


def test_another_transform_of_the_loader_is_refused_and_the_same_of_another_process_is_not(
    tmp_path,
):
    code = """
import sys
from tinygrad_mnist import DataLoader, Linear
from tinygrad_mnist.data.transforms import random_shift
from tinygrad_mnist.training import checkpoint
loader = DataLoader([1, 2], [3, 4], 2, transform=random_shift(1))
checkpoint.save(sys.argv[1], Linear(3, 2), loader=loader)
"""
    path = tmp_path / "run.npz"
    assert run_python("-c", code, path).returncode == 0
    loader = DataLoader([1, 2], [3, 4], 2, transform=random_shift(1))
    checkpoint.load(path, Linear(3, 2), loader=loader)
    for other in (None, random_shift(2), abs):
        loader.transform = other
        with pytest.raises(CheckpointError, match=r"'transform': '.*_shifted>, 1\)'\}, not"):
            checkpoint.load(path, Linear(3, 2), loader=loader)


def test_generators_shared_otherwise_are_refused(saved):
    path, _, _ = saved
    other = Everything(5)
    other.model[4].rng = other.model[2].rng
    with pytest.raises(
        CheckpointError, match=r"2 random generators for the model, which holds 1 \(those"
    ):
        checkpoint.load(path, *other.objects())


def test_no_file_is_an_error_of_its_own(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("meta", "text"),
    [
        ({"a": {1, 2}}, "at meta/a, got a set"),
        ({"a": [0, object()]}, "at meta/a/1, got an object"),
        ({"a": {1: 2}}, "at meta/a, got a dict"),
        ({"a": 1j}, "at meta/a, got 1j"),
        ({"a": np.array(["x"])}, "at meta/a, got an array of shape (1,) and dtype <U1"),
        (
            {"a": np.ma.array([1.0, 2.0], mask=[0, 1])},
            "at meta/a, got a masked array of shape (2,) and dtype float64",
        ),
        ({"a": [np.ma.masked]}, "at meta/a/0, got a masked array of shape () and dtype float64"),
        pytest.param(
            {"a": np.longdouble(1)},
            "at meta/a, got np.longdouble('1.0')",
            marks=pytest.mark.skipif(np.finfo(np.longdouble).bits == 64, reason="a float64 there"),
        ),
    ],
)
def test_what_cannot_be_saved_is_named_and_nothing_is_written(tmp_path, meta, text):
    contract = "numbers, strings, arrays, and lists, tuples and dicts of them"
    with refusal(TypeError, f"checkpoint.save: expected {contract} {text}") as caught:
        checkpoint.save(tmp_path / "a.npz", Linear(1, 1), **meta)
    assert "`names.tolist()`" in caught.value.__notes__[0]
    assert os.listdir(tmp_path) == []


def test_names_and_nesting_may_be_long_and_deep(tmp_path):
    nested = 1
    for _ in range(90):
        nested = [nested]
    meta = {"nested": nested, "x" * 60_000: np.ones(2), "y" * 100_000: 2, "z": 10**308}
    checkpoint.save(tmp_path / "a.npz", Linear(1, 1), **meta)
    loaded = checkpoint.load(tmp_path / "a.npz")
    assert loaded.pop("x" * 60_000).tolist() == meta.pop("x" * 60_000).tolist()
    assert loaded == meta


def within_itself(kind):
    inner = []
    inner.append({"again": inner} if kind is dict else kind([inner]))
    return inner


DEEP = "meta nested at most 100 deep, got a "
LONG = "arrays under names of at most 65000 letters, got 'meta/"


@pytest.mark.parametrize(
    ("meta", "text"),
    [
        ({"a": within_itself(list)}, DEEP),
        ({"a": within_itself(tuple)}, DEEP),
        ({"a": within_itself(dict)}, DEEP),
        ({"x" * 70_000: np.ones(2)}, LONG),
        ({"\u00e9" * 11_000: np.ones(2)}, LONG),
        ({"x" * 40_000: {"y" * 30_000: np.ones(2)}}, LONG),
        ({"a": 10**309}, "integers that a float could hold at meta/a, got an integer of more"),
        ({"a": [-(10**5000)]}, "integers that a float could hold at meta/a/0, got an integer"),
    ],
)
def test_what_has_no_end_or_is_too_large_is_refused(tmp_path, meta, text):
    with refusal_starting(ValueError, f"checkpoint.save: expected {text}"):
        checkpoint.save(tmp_path / "a.npz", Linear(1, 1), **meta)
    assert os.listdir(tmp_path) == []


def test_what_is_no_module_is_not_written(tmp_path):
    with refusal(TypeError, "checkpoint.save: expected a Module, got the class Linear"):
        checkpoint.save(tmp_path / "a.npz", Linear)
    assert os.listdir(tmp_path) == []


def test_a_record_that_cannot_be_read_again_is_not_written(tmp_path):
    history = History([{"epoch": 1, "name": "first"}])
    with refusal(ValueError, "something else than numbers by name as record 1"):
        checkpoint.save(tmp_path / "a.npz", Linear(1, 1), history=history)
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_two_processes_may_write_the_same_file(tmp_path):
    path = tmp_path / "a.npz"
    program = (
        "import sys, numpy as np\n"
        "from tinygrad_mnist import Linear\nfrom tinygrad_mnist.training import checkpoint\n"
        "model = Linear(300, 300, rng=int(sys.argv[2]))\n"
        "for i in range(40): checkpoint.save(sys.argv[1], model, writer=sys.argv[2])\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(path), writer]) for writer in "12"
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    model = Linear(300, 300)
    writer = int(checkpoint.load(path, model)["writer"])
    assert np.array_equal(model.weight.data, Linear(300, 300, rng=writer).weight.data)
    assert os.listdir(tmp_path) == ["a.npz"]


def holding(generator):
    """Return a model and its optimizer; the model holds a generator."""
    layer = Dropout(0.5, rng=0)
    layer.other = generator
    model = Sequential(Linear(2, 2, rng=0), layer)
    return model, SGD(model.parameters(), lr=0.1)


GENERATORS = {
    "PCG64": np.random.PCG64,
    "PCG64DXSM": np.random.PCG64DXSM,
    "MT19937": np.random.MT19937,
    "Philox": np.random.Philox,
    "SFC64": np.random.SFC64,
    "RandomState": np.random.RandomState,
    "Random": random.Random,
}


@pytest.mark.parametrize("name", GENERATORS)
@given(seed=st.integers(0, 2**32 - 1), draws=st.integers(0, 700))
def test_every_state_that_occurs_comes_back(tmp_path_factory, name, seed, draws):
    generator, other = GENERATORS[name](seed), GENERATORS[name](1)
    numpy = isinstance(generator, np.random.BitGenerator)
    one, two = (np.random.Generator(g) if numpy else g for g in (generator, other))
    for _ in range(draws):
        if isinstance(one, random.Random):
            one.gauss()
        else:
            one.normal()
            numpy and one.integers(9, dtype=np.int32)  # half of 64 bits stay in reserve
    path = tmp_path_factory.mktemp("generators") / "a.npz"
    checkpoint.save(path, *holding(one))
    checkpoint.load(path, *holding(two))
    draw = "gauss" if isinstance(one, random.Random) else "normal"
    assert [getattr(one, draw)() for _ in range(3)] == [getattr(two, draw)() for _ in range(3)]


def changed(generator, change):
    """Set one of NumPy's generators to a changed state, which it does not check."""
    if isinstance(generator, np.random.RandomState):
        state = generator.get_state(legacy=False)
        change(state)
        generator.set_state(state)
    else:
        state = generator.state
        change(state)
        generator.state = state
    return generator


def zeros(state):
    state["state"] = {name: value * 0 for name, value in state["state"].items()}


def unused_bits(state):
    """Leave the only bits of an MT19937's state that no number depends on."""
    zeros(state)
    state["state"]["key"][0] = 2**31 - 1


def python(words, reserve):
    generator = random.Random(0)
    generator.setstate((3, (*words, 624), reserve))
    return generator


EVEN = "a state of PCG64 with an even inc"
ZERO = "a state of MT19937 that is 0"
OTHER = "a state of another generator than "
IMPOSSIBLE = {
    "PCG64 of zeros": (changed(np.random.PCG64(0), zeros), EVEN),
    "PCG64DXSM of zeros": (changed(np.random.PCG64DXSM(0), zeros), EVEN),
    "MT19937 of zeros": (changed(np.random.MT19937(0), zeros), ZERO),
    "MT19937 of unused bits": (changed(np.random.MT19937(0), unused_bits), ZERO),
    "RandomState of zeros": (changed(np.random.RandomState(0), zeros), ZERO),
    "Random of zeros": (python([0] * 624, None), ZERO),
}
for reserve in (np.nan, np.inf, -1e9):
    IMPOSSIBLE[f"Random, {reserve} in reserve"] = python([1] * 624, reserve), OTHER + "tuple"
    IMPOSSIBLE[f"RandomState, {reserve} in reserve"] = (
        changed(np.random.RandomState(0), lambda s, new=reserve: s.update(has_gauss=1, gauss=new)),
        OTHER + "dict",
    )


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_state_that_no_generator_can_be_in_is_refused(tmp_path, name):
    generator, found = IMPOSSIBLE[name]
    path = tmp_path / "a.npz"
    checkpoint.save(path, *holding(generator))
    kind = type(generator)
    one, same = kind(5), kind(5)
    model, optimizer = holding(one)
    with refusal(CheckpointError, f"checkpoint.load: expected {path} to fit, got {found}"):
        checkpoint.load(path, model, optimizer)
    one, same = (
        np.random.Generator(g) if isinstance(g, np.random.BitGenerator) else g for g in (one, same)
    )
    assert one.random() == same.random()


def test_a_number_in_reserve_may_be_as_large_as_one_that_is_drawn(tmp_path):
    largest = (2 * 53 * np.log(2)) ** 0.5  # sqrt(-2 log(2**-53))
    checkpoint.save(tmp_path / "a.npz", *holding(python([1] * 624, largest)))
    other = random.Random(5)
    checkpoint.load(tmp_path / "a.npz", *holding(other))
    assert other.gauss() == largest


@pytest.mark.parametrize("word", [2**32, -1, 2**70])
def test_a_word_of_more_than_32_bits_is_refused(tmp_path, word):
    path, other, same = tmp_path / "a.npz", random.Random(5), random.Random(5)
    checkpoint.save(path, *holding(random.Random(0)))

    def change(tree):
        tree["generators"]["dict"]["model"][1]["tuple"][1]["tuple"][7] = word

    content = path.read_bytes()
    rewritten(path, content, tree=tree_with(content, change))
    found = "a state of MT19937 with words of more than 32 bits"
    with refusal(CheckpointError, f"checkpoint.load: expected {path} to fit, got {found}"):
        checkpoint.load(path, *holding(other))
    assert other.getstate() == same.getstate()


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "the disk cannot be read")])
def test_what_the_machine_lacks_is_no_damage_of_the_file(saved, monkeypatch, error):
    path, _, _ = saved

    def fails(*args, **options):
        raise error

    for owner, name in ((json, "loads"), (zipfile.ZipFile, "read"), (pathlib.Path, "read_bytes")):
        other = Everything(5)
        before = other.state()
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, fails)
            with pytest.raises(type(error)) as caught:
                checkpoint.load(path, *other.objects())
        assert caught.value is error
        assert other.state() == before


def test_a_header_that_numpy_would_choke_on_is_refused(saved, tmp_path):
    """Its parser takes some hundreds of brackets and signs for a lack of memory."""
    _, content, _ = saved
    header = b"(" * 199 + b"-" * 2000
    member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with pytest.raises(MemoryError):
        np.load(io.BytesIO(member))
    path = rewritten(tmp_path / "a.npz", content, **{"model/0.weight": member})
    assert_refused(path, "0.weight.npy, which is no array of numbers")
