"""check_jax: functions of JAX, also those with a `custom_vjp` (needs JAX, as the extra `keras`)."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Unpack

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._extras import needing
from tinygrad_mnist.testing.contracts.function import Function
from tinygrad_mnist.testing.differences.checker import Settings
from tinygrad_mnist.testing.functions import argument_names, called, check_function, distinct
from tinygrad_mnist.testing.report import GradientReport

__all__ = ["check_jax"]

with needing("tinygrad_mnist.testing.jax", "keras"):
    import jax


def check_jax(
    function: Callable[..., Any],
    *inputs: Any,
    dtype: DTypeLike = np.float64,
    **settings: Unpack[Settings],
) -> GradientReport:
    """Check the reverse mode of a function of JAX arrays by central differences.

    What is checked is what `jax.vjp` returns: your own rule of a `jax.custom_vjp`, or JAX's. The
    function is compiled if it can be.

    Args:
        function: Takes the inputs and returns one array.
        inputs: Arrays, or trees of them (dicts, lists, modules of Equinox), as `jax.tree` knows
            them. Every float in them is differentiated for, and named by its path. The rest stays
            what it is: integers, keys of `jax.random`, functions.
        dtype: float64 or float32: what the floats are converted to. float64 is switched on for the
            check alone, in this thread.
        settings: Those of `check_gradients`.

    Raises:
        GradientCheckError: A gradient is wrong; its `report` says where.
        ModuleContractError: The function breaks a rule; its `rule` says how.
        InconclusiveGradientCheck: Too little could be judged to say anything.
    """
    owner = "check_jax"
    kind = check.float_dtype(owner, dtype)
    with precision(kind):
        arrays, rebuilt = floats_in(inputs, argument_names(function, len(inputs)), kind)
        run = jax_function(called(function), lambda *floats: function(*rebuilt(floats)), arrays)
        return check_function(owner, run, arrays, settings)


def precision(dtype: np.dtype[Any]) -> AbstractContextManager[Any]:
    """Return a context in which JAX computes in float64, if that is the dtype."""
    return jax.enable_x64(True) if dtype == np.float64 else nullcontext()


def floats_in(
    inputs: Sequence[Any], names: Sequence[str], dtype: np.dtype[Any]
) -> tuple[dict[str, NDArray[Any]], Callable[[Sequence[Any]], list[Any]]]:
    """Return copies of the floats in the inputs, by name, and how to put others in their place."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(list(inputs))
    values = [leaf for _, leaf in leaves]
    found = [i for i, value in enumerate(values) if _is_float(value)]
    paths = [leaves[i][0] for i in found]
    labels = [names[path[0].idx] + jax.tree_util.keystr(path[1:]) for path in paths]
    arrays = {
        label: np.array(values[i], dtype) for label, i in zip(distinct(labels), found, strict=True)
    }

    def rebuilt(floats: Sequence[Any]) -> list[Any]:
        others = dict(zip(found, floats, strict=True))
        filled = [others.get(i, value) for i, value in enumerate(values)]
        return list(jax.tree_util.tree_unflatten(tree, filled))

    return arrays, rebuilt


def jax_function(
    name: str, function: Callable[..., Any], arrays: dict[str, NDArray[Any]]
) -> Function:
    """Return a function of JAX arrays as one of NumPy arrays, with what `jax.vjp` says."""

    def pullback(dy: Any, *floats: Any) -> Any:
        return jax.vjp(function, *floats)[1](jax.numpy.asarray(dy))

    floats = [jax.numpy.asarray(array) for array in arrays.values()]
    forward = _compiled(function, *floats)
    vjp = _compiled(pullback, forward(*floats), *floats)
    return Function(name, forward, lambda *given: list(map(np.asarray, vjp(*given))), lambda: None)


def _compiled(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """Return the function compiled, if it can be."""
    compiled: Callable[..., Any] = jax.jit(function)
    try:
        compiled(*arguments)
    except Exception:  # what cannot be traced runs as it is, and says itself what it lacks
        return function
    return compiled


def _is_float(value: object) -> bool:
    dtype = getattr(value, "dtype", None)
    return isinstance(value, float) or (
        dtype is not None and jax.numpy.issubdtype(dtype, jax.numpy.floating)
    )
