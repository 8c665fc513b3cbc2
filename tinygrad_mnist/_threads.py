"""How many threads a product gets: detection, the environment variable, and `num_threads`.

A product of little work runs on one thread, a large one on as many as its BLAS has been given.
NumPy and SciPy may bring a BLAS each, with a pool of threads each; `_blas` uses both.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy
import scipy.linalg.blas  # loads the library that is looked for below
from threadpoolctl import ThreadpoolController

from tinygrad_mnist import _checks as check

Result = TypeVar("Result")
Pool = tuple[Callable[[], int], Callable[[int], None]]  # gets and sets the number of threads

# In multiply-adds. Two threads pay only above this, and never for a single row: waking them, and
# fetching W from the other core's cache afterwards, made a step of 784 x 100 take 2 to 6 times as
# long.
WORTH_THREADS = 16_000_000
_MOST_THREADS = 1024


def _pools() -> tuple[Pool | None, Pool | None]:
    """Return the pools of NumPy's and of SciPy's OpenBLAS, None for what has another BLAS.

    The folder tells whose a library is. Where only one is loaded, as in a conda environment, both
    use it.
    """
    loaded = ThreadpoolController().select(internal_api="openblas").lib_controllers

    def pool(package: ModuleType) -> Pool | None:
        folder = Path(str(package.__file__)).resolve().parent
        folders = {folder, folder.with_name(f"{package.__name__}.libs")}
        own = [lib for lib in loaded if folders & set(Path(lib.filepath).resolve().parents)]
        return _functions((own or loaded)[0].dynlib) if own or len(loaded) == 1 else None

    return pool(numpy), pool(scipy)


def _functions(library: Any) -> Pool | None:
    """Return a library's functions, whatever their names are in this build.

    threadpoolctl's own take three times as long, and would keep the other threads of the process
    from setting theirs.
    """
    for prefix, suffix in itertools.product(("", "scipy_"), ("", "64_", "_64")):
        get = getattr(library, f"{prefix}openblas_get_num_threads{suffix}", None)
        if get is not None:
            return get, getattr(library, f"{prefix}openblas_set_num_threads{suffix}")
    return None


def _from_environment() -> int | None:
    """Return the count in TINYGRAD_MNIST_NUM_THREADS, None if it is not set."""
    value = os.environ.get("TINYGRAD_MNIST_NUM_THREADS", "")
    if value and not (value.isdecimal() and 1 <= int(value) <= _MOST_THREADS):
        contract = f"an integer from 1 to {_MOST_THREADS}"
        raise check.value_error("TINYGRAD_MNIST_NUM_THREADS", contract, value)
    return int(value) if value else None


NUMPY, SCIPY = _pools()
fixed_count = _from_environment()


def count_for(work: int) -> int | None:
    """Return how many threads so many multiply-adds get, None for as many as there are."""
    return fixed_count or (None if work >= WORTH_THREADS else 1)


def called(
    pool: Pool | None,
    work: int,
    rows: int,
    routine: Callable[..., Result],
    *args: Any,
    **options: Any,
) -> Result:
    """Return what the routine returns, run on as many threads as its work, in that pool, is worth.

    The count is set and reset around each call, as the pool belongs to the whole process.
    """
    count = count_for(work if rows > 1 else 0)
    if count is None or pool is None:
        return routine(*args, **options)
    get_count, set_count = pool
    before = get_count()
    if before == count:
        return routine(*args, **options)
    try:
        set_count(count)
        return routine(*args, **options)
    finally:
        set_count(before)


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Run every product of the package on n threads, 1 to 1024, inside a `with` block.

    Without it, products of fewer than 16 million multiply-adds, and all of a single row, run on
    one thread, larger ones on as many as the process has given to NumPy's and SciPy's BLAS (by
    default, all cores). The environment variable TINYGRAD_MNIST_NUM_THREADS sets n from the start.
    Not for several Python threads at once.
    """
    global fixed_count
    n = check.integer("num_threads", "n", n, at_least=1)
    if n > _MOST_THREADS:
        raise check.value_error("num_threads", f"n <= {_MOST_THREADS}", n)
    before, fixed_count = fixed_count, n
    try:
        yield
    finally:
        fixed_count = before
