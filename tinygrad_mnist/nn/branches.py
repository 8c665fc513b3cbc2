"""Branches: layers side by side that get the same x, for models that are more than a chain."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn.sequential import Sequential, check_layers, entering
from tinygrad_mnist.parameter import Buffer


class Branches(Module):
    """The same x goes into every branch, and dx is the sum of theirs. Write `named_branches`."""

    _y: FloatArray | None = None  # of the last forward: dy must be like it

    @abstractmethod
    def named_branches(self) -> Iterable[tuple[str, Module]]:
        """Yield the branches, by their names in messages and of parameters."""

    @property
    def input_grad(self) -> bool:  # type: ignore[override]
        """Whether backward returns dx: not if a branch has none to add."""
        return all(branch.input_grad for _, branch in self.named_branches())

    @property
    def sample_axes(self) -> int:  # type: ignore[override]
        """How many last axes of x are one sample, which is the most that a branch says."""
        return max(branch.sample_axes for _, branch in self.named_branches())

    @property
    def added_axes(self) -> int:  # type: ignore[override]
        """How many more axes y has than x, as the first branch says."""
        return next(branch.added_axes for _, branch in self.named_branches())

    def _outputs(self, x: ArrayLike) -> list[Any]:
        """Return the y of every branch."""
        ys = []
        for name, branch in self.named_branches():
            try:
                y = branch.forward(entering(branch, x))  # bytes, where another looks them up
                ys.append(check.floats(branch, "y", y))
            except (ValueError, TypeError) as error:
                check.locate(error, self, name, branch)
                raise
        return ys

    def _input_grads(self, dys: Iterable[FloatArray]) -> list[Any]:
        """Return the dx of every branch, given the dy of each."""
        dxs = []
        for (name, branch), dy in zip(self.named_branches(), dys, strict=False):
            try:
                dxs.append(branch.backward(dy))
            except (ValueError, TypeError, RuntimeError) as error:
                check.locate(error, self, name, branch)
                raise
        return dxs


class Residual(Branches):
    """y = body(x) + shortcut(x), or body(x) + x without one; dx is the sum of both gradients.

    Both are of one shape, as nothing is broadcast. The body is a Sequential: names are those of
    "body.0.weight", and a layer's refusal begins "Residual, layer body.0: Linear: expected ...".
    (He et al. 2016, arXiv:1512.03385.)

    Args:
        layers: Of the body, as of a Sequential. Without any, body(x) is x.
        shortcut: A Module that gives x the shape of body(x), where that is another.
    """

    def __init__(self, *layers: Module, shortcut: Module | None = None) -> None:
        named = {f"body.{i}": layer for i, layer in enumerate(layers)}
        if shortcut is not None:
            named["shortcut"] = shortcut
        check_layers(self, named.items())
        self.body, self.shortcut = Sequential(*layers), shortcut

    @property
    def layers(self) -> tuple[Module, ...]:
        """The layers of the body, as they were given."""
        return self.body.layers

    def named_branches(self) -> Iterator[tuple[str, Module]]:
        """Yield the body and, if there is one, the shortcut."""
        yield "body", self.body
        if self.shortcut is not None:
            yield "shortcut", self.shortcut

    def forward(self, x: ArrayLike) -> Any:
        self._y = None
        x = entering(self, x)
        ys = self._outputs(x)
        dtype, other = common_dtype(x, ys), "shortcut(x)"
        if self.shortcut is None:
            ys, other = [*ys, x], "x"
        check_shapes(self, f"body(x) and {other} of one shape", ys)
        y = added(ys, dtype)
        self._y = y[...]  # a view: the caller may reshape y in place
        return y

    def backward(self, dy: ArrayLike) -> Any:
        dy = check.cotangent(self, dy, self._y)
        dxs = self._input_grads(repeat(dy))
        if self.shortcut is None:
            dxs.append(dy)
        return added(dxs, dy.dtype)


class Parallel(Branches):
    """y = concatenate([f(x) for f in branches], axis=-1), or their sum; dx is the sum of theirs.

    Backward gives each branch its own part of dy, or all of it. Names are by position, as in a
    Sequential: "0.weight", and "Parallel, layer 1: Linear: expected ...".

    Args:
        branches: Modules, at least one, each one once. The shapes of their y are alike, for
            "concat" but for the last axis.
        join: "concat" or "add".
    """

    join = check.Choice("concat", "add")
    _cuts: Any = None  # where y was joined, in the last forward; None if by adding

    def __init__(self, *branches: Module, join: Literal["concat", "add"] = "concat") -> None:
        self.join = join
        self.branches = branches
        if not branches:
            raise ValueError(check.expected(self, "at least one branch", "none"))
        check_layers(self, self.named_branches())

    def named_branches(self) -> Iterator[tuple[str, Module]]:
        """Yield the branches, named by position."""
        return ((str(i), branch) for i, branch in enumerate(self.branches))

    def forward(self, x: ArrayLike) -> Any:
        self._y = None
        x = entering(self, x)
        ys = self._outputs(x)
        dtype = common_dtype(x, ys)
        if self.join == "add":
            check_shapes(self, "y of one shape from every branch", ys)
            y, self._cuts = added(ys, dtype), None
        else:
            check_shapes(self, "y of one shape but for the last axis from every branch", ys, -1)
            y = np.concatenate(ys, axis=-1, dtype=dtype)
            self._cuts = np.cumsum([y.shape[-1] for y in ys[:-1]])
        self._y = y[...]  # a view: the caller may reshape y in place
        return y

    def backward(self, dy: ArrayLike) -> Any:
        dy = check.cotangent(self, dy, self._y)
        dys = repeat(dy) if self._cuts is None else np.split(dy, self._cuts, axis=-1)
        return added(self._input_grads(dys), dy.dtype)

    def _members(self) -> Iterator[tuple[str, Module | Buffer]]:
        for name, member in super()._members():
            yield name.removeprefix("branches."), member


def check_shapes(owner: Module, contract: str, ys: list[Any], end: int | None = None) -> None:
    """Refuse arrays whose shapes differ; with an `end`, up to that axis, which all must have."""
    shapes = [y.shape for y in ys]
    if len({shape[:end] for shape in shapes}) > 1 or (end and () in shapes):
        raise ValueError(check.expected(owner, contract, " and ".join(map(str, shapes))))


def common_dtype(x: Any, ys: list[Any]) -> np.dtype[Any]:
    """Return the dtype of a branch with parameters: without any, its y has that of x."""
    of_x = np.promote_types(x.dtype, np.float32)
    return next((y.dtype for y in ys if y.dtype != of_x), of_x)


def added(terms: list[Any], dtype: np.dtype[Any]) -> Any:
    """Return the sum in this dtype, a new array; None if a term is."""
    if any(term is None for term in terms):
        return None
    total = np.array(terms[0], dtype)
    for term in terms[1:]:
        total += term
    return total
