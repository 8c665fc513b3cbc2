"""How many threads a product gets: detection, the environment variable, and `num_threads`.

A product of little work runs on one thread, a large one on as many as BLAS has been given. The
count belongs to SciPy's BLAS alone, which is what `_blas` calls.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import scipy.linalg.blas  # loads the library that is looked for below
from threadpoolctl import ThreadpoolController

from tinygrad_mnist import _checks as check

# In multiply-adds. Below the first, BLAS uses one thread by itself. Above the second, two threads
# pay. In between, and for a single row at any size, they cost more than they save: waking them,
# and fetching W from the other core's cache afterwards, made a step of 784 x 100 take 2 to 6 times
# as long.
ALWAYS_SERIAL = 8_192
WORTH_THREADS = 16_000_000
_MOST_THREADS = 1024


def _count_functions() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """Return how to get and set the thread count of SciPy's OpenBLAS, None if it has another BLAS.

    NumPy may bring another library of the same name: its folder tells which is SciPy's.
    Where only one is loaded, as in a conda environment, both use it.
    """
    loaded = ThreadpoolController().select(internal_api="openblas").lib_controllers
    scipy_folder = Path(scipy.__file__).resolve().parent
    folders = {scipy_folder, scipy_folder.with_name("scipy.libs")}
    own = [lib for lib in loaded if folders & set(Path(lib.filepath).resolve().parents)]
    if not own and len(loaded) != 1:
        return None
    # threadpoolctl's own functions take three times as long, and would keep the other threads of
    # the process from setting theirs
    library = (own or loaded)[0].dynlib
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


COUNT_FUNCTIONS = _count_functions()
fixed_count = _from_environment()


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Run every product of the package on n threads, 1 to 1024, inside a `with` block.

    Without it, products of fewer than 16 million multiply-adds, and all of a single row, run on
    one thread, larger ones on as many as the process has given to SciPy's BLAS (by default, all
    cores). The environment variable TINYGRAD_MNIST_NUM_THREADS sets n from the start. Not for
    several Python threads at once.
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
