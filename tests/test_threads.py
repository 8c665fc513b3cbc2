"""How many threads a product gets, and that the count is left as it was."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy
from helpers import refusal, run_python
from threadpoolctl import ThreadpoolController

from tinygrad_mnist import _blas, _threads, num_threads


class Threads:
    """A pool of threads that notes what it is told."""

    def __init__(self, count=2):
        self.count, self.told = count, []

    def __iter__(self):
        return iter((lambda: self.count, self.set))

    def set(self, count):
        self.count = count
        self.told.append(count)


@pytest.fixture
def threads():
    return Threads()


def during(threads, rows, side):
    """Return the thread count while a routine runs."""
    return _threads.called(threads, rows * side * side, rows, lambda: threads.count)


@pytest.mark.parametrize(
    ("rows", "side", "told"),
    [
        (1, 400, [1, 2]),
        (10, 300, [1, 2]),
        (1, 4096, [1, 2]),  # a single row never pays
        (128, 400, []),
    ],
)
def test_small_products_run_on_one_thread_and_the_count_is_restored(threads, rows, side, told):
    assert during(threads, rows, side) == (1 if told else 2)
    assert threads.told == told


def test_a_process_limited_to_one_thread_is_left_alone(threads):
    threads.count = 1
    assert during(threads, 1, 400) == 1
    assert threads.told == []


def test_the_thread_count_is_restored_after_an_error(threads):
    with pytest.raises(TypeError):
        _threads.called(threads, 160_000, 1, abs)
    assert threads.told == [1, 2]


def test_the_thread_count_is_restored_after_ctrl_c_while_it_is_set(threads):
    def set_and_interrupted(count):
        threads.set(count)
        if count == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _threads.called((lambda: threads.count, set_and_interrupted), 160_000, 1, abs, 1)
    assert threads.count == 2


def test_without_a_pool_to_set_the_routine_is_just_called():
    assert _threads.called(None, 160_000, 1, abs, -1) == 1


def test_num_threads_decides_inside_its_block(threads):
    with num_threads(3):
        assert during(threads, 1, 400) == during(threads, 128, 400) == 3
        with num_threads(1):
            assert during(threads, 128, 400) == 1
        assert during(threads, 1, 400) == 3
    assert during(threads, 128, 400) == 2
    with pytest.raises(RuntimeError), num_threads(5):
        raise RuntimeError
    assert during(threads, 128, 400) == 2


@pytest.mark.parametrize(("rows", "told"), [(1, 1), (2, 0)])
def test_a_stack_of_products_with_a_row_sets_the_count_sooner(rows, told, monkeypatch):
    """BLAS wakes threads for a vector at 9,216 multiply-adds, for a matrix at 262,144."""
    pools = []
    monkeypatch.setattr(_blas, "called", lambda pool, *_: pools.append(pool))
    _blas.products(np.ones((rows, 25)), np.ones((3, 25, 500)))
    assert [pool is _threads.NUMPY for pool in pools] == [True] * told


def test_products_worth_several_threads_share_one_pool(monkeypatch):
    """Threads that have just worked keep a core busy for some 30 ms, waiting for more."""
    pools = []

    def noted(pool, work, rows, routine, *args, **options):
        pools.append((pool, work >= _threads.WORTH_THREADS and rows > 1))
        return routine(*args, **options)

    monkeypatch.setattr(_blas, "called", noted)
    rng = np.random.default_rng(0)
    for rows in (100, 300):
        x, W, dy = rng.random((rows, 260)), rng.random((260, 250)), rng.random((rows, 250))
        np.testing.assert_allclose(_blas.product(x, W), np.einsum("bi,io->bo", x, W))
        np.testing.assert_allclose(_blas.product(dy, W.T), np.einsum("bo,io->bi", dy, W))
        _blas.add_product(W, x, dy, 0.5)
    assert [pool is _threads.SCIPY for pool, several in pools if several] == [True] * 3
    assert [pool is _threads.NUMPY for pool, several in pools if not several] == [True, True, False]


@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_num_threads_refuses_what_is_no_count(n, error):
    with (
        refusal(error, f"num_threads: expected n to be an integer >= 1, got {n}"),
        num_threads(n),
    ):
        pass


def test_num_threads_refuses_more_than_there_can_be():
    with refusal(ValueError, "num_threads: expected n <= 1024, got 4294967296"):  # noqa: SIM117
        with num_threads(2**32):
            pass


@pytest.mark.slow
def test_the_environment_fixes_the_count():
    code = "from tinygrad_mnist import _threads; print(_threads.fixed_count)"
    assert run_python("-c", code, TINYGRAD_MNIST_NUM_THREADS="2").stdout == "2\n"
    done = run_python("-c", code, TINYGRAD_MNIST_NUM_THREADS="two")
    contract = "expected an integer from 1 to 1024, got 'two'"
    assert f"ValueError: TINYGRAD_MNIST_NUM_THREADS: {contract}" in done.stderr


def test_an_empty_variable_fixes_no_count(monkeypatch):
    monkeypatch.setenv("TINYGRAD_MNIST_NUM_THREADS", "")
    assert _threads._from_environment() is None


@pytest.mark.parametrize("bad", ["0", "two", "-1", "99999999999"])
def test_the_environment_fixes_no_bad_count(bad, monkeypatch):
    monkeypatch.setenv("TINYGRAD_MNIST_NUM_THREADS", bad)
    text = f"TINYGRAD_MNIST_NUM_THREADS: expected an integer from 1 to 1024, got {bad!r}"
    with refusal(ValueError, text):
        _threads._from_environment()


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(784,), (1, 784), (3, 784), (20, 784)])
def test_training_leaves_every_pool_as_it_was_and_wakes_no_thread(shape):
    """In a separate process: steps of a small network, then the counts and the CPU time."""
    code = f"""
import time
import numpy as np
from threadpoolctl import threadpool_info
from tinygrad_mnist import SGD, Linear, MSELoss, ReLU, Sequential

counts = [(p["filepath"], p["num_threads"]) for p in threadpool_info()]
assert sum("scipy" in path for path, _ in counts), counts
model = Sequential(Linear(784, 100, rng=0), ReLU(), Linear(100, 1, rng=1))
loss, optimizer = MSELoss(), SGD(model.parameters(), 0.01, momentum=0.5)
x = np.ones({shape}, np.float32)
t = np.ones((*x.shape[:-1], 1), np.float32)
used, own = time.process_time(), time.thread_time()
for _ in range(500):
    loss(model(x), t)
    optimizer.zero_grad()
    model.backward(loss.backward())
    optimizer.step()
used, own = time.process_time() - used, time.thread_time() - own
assert counts == [(p["filepath"], p["num_threads"]) for p in threadpool_info()]
print(used / own < 1.2)
"""
    done = run_python("-c", code, OPENBLAS_NUM_THREADS="2")
    assert done.stdout == "True\n", done.stderr


def library(path, functions):
    """Return such a library as threadpoolctl finds, with functions to get and to set."""
    names = {functions.format(verb): f"{verb} of {path}" for verb in ("get", "set")}
    return SimpleNamespace(filepath=path, dynlib=SimpleNamespace(**names))


def site(package):
    """Return the folder in which a wheel of this package keeps its libraries."""
    return Path(package.__file__).resolve().parent.with_name(f"{package.__name__}.libs")


PLAIN = library("/env/a.so", "openblas_{}_num_threads")
OF_64_BITS = library("/env/b.so", "scipy_openblas_{}_num_threads64_")
UNKNOWN = library("/env/c.so", "other_{}_num_threads")
NUMPYS = library(f"{site(np)}/n.so", "scipy_openblas_{}_num_threads64_")
SCIPYS = library(f"{site(scipy)}/s.so", "scipy_openblas_{}_num_threads")


@pytest.mark.parametrize(
    ("loaded", "of_numpy", "of_scipy"),
    [
        ([SCIPYS, NUMPYS], NUMPYS, SCIPYS),
        ([PLAIN], PLAIN, PLAIN),
        ([OF_64_BITS], OF_64_BITS, OF_64_BITS),
        ([UNKNOWN], None, None),
        ([PLAIN, OF_64_BITS], None, None),  # whose is which?
        ([PLAIN, SCIPYS], None, SCIPYS),
        ([], None, None),
    ],
    ids=["wheels", "plain names", "names of 64 bits", "unknown", "two", "wheel of one", "none"],
)
def test_a_pool_is_told_by_its_folder_or_by_being_the_only_one(
    loaded, of_numpy, of_scipy, monkeypatch
):
    controller = SimpleNamespace(select=lambda **api: SimpleNamespace(lib_controllers=loaded))
    monkeypatch.setattr(_threads, "ThreadpoolController", lambda: controller)
    wanted = [lib and tuple(vars(lib.dynlib).values()) for lib in (of_numpy, of_scipy)]
    assert list(_threads._pools()) == wanted


@pytest.mark.parametrize("package", ["numpy", "scipy"])
def test_a_count_is_set_in_the_library_of_that_package_alone(package):
    """As threadpoolctl sees it."""
    get_count, set_count = getattr(_threads, package.upper())
    before = get_count()
    loaded = ThreadpoolController().select(internal_api="openblas").lib_controllers
    own = [lib for lib in loaded if package in Path(lib.filepath).parent.name]
    others = [(lib, lib.get_num_threads()) for lib in loaded if lib not in own]
    try:
        set_count(1)
        assert [lib.get_num_threads() for lib in own] == [1]
        assert all(lib.get_num_threads() == count for lib, count in others)
    finally:
        set_count(before)


TWO_MODELS = """
import threading
import numpy as np
from tinygrad_mnist import SGD, Linear, MSELoss, ReLU, Sequential

def trained(width, batch, steps, seed):
    rng = np.random.default_rng(seed)
    model = Sequential(Linear(width, width, rng=rng), ReLU(), Linear(width, 10, rng=rng))
    loss, optimizer = MSELoss(), SGD(model.parameters(), 0.1, momentum=0.9)
    x, t = rng.normal(size=(batch, width)), rng.normal(size=(batch, 10))
    for _ in range(steps):
        loss(model(x), t)
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
    return [array.tobytes() for array in model.state_dict().values()]

def same_in_threads(*sizes):
    found = {}
    threads = [
        threading.Thread(target=lambda seed=seed: found.update({seed: trained(*sizes, seed)}))
        for seed in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found == {seed: trained(*sizes, seed) for seed in range(2)}
"""


def test_two_small_models_in_two_threads_give_the_bits_that_they_give_alone():
    names = {}
    exec(TWO_MODELS, names)
    assert names["same_in_threads"](20, 8, 300)


def test_two_large_models_in_two_threads_do_with_one_blas_thread():
    code = TWO_MODELS + "print(all(same_in_threads(512, 128, 20) for _ in range(3)))"
    done = run_python("-c", code, OPENBLAS_NUM_THREADS="1")
    assert done.stdout == "True\n", done.stderr
