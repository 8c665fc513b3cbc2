"""Training by other means: many steps in one compiled kernel (extra `compiled`: numba)."""

from tinygrad_mnist.compiled.plan import ROWS
from tinygrad_mnist.compiled.trainer import compile_sgd

__all__ = ["ROWS", "compile_sgd"]
