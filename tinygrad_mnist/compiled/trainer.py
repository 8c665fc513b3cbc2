"""SGD in compiled kernels, many steps at a call (needs the `compiled` extra: numba).

In small networks Python itself is most of the cost, and work on zeros most of the rest. Here a
kernel runs the whole chain, step after step, and leaves zeros out.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist._interrupts import holding
from tinygrad_mnist._tables import kind_of, rows_of, shared_dtype
from tinygrad_mnist.compiled import batches, images, samples, threads
from tinygrad_mnist.compiled.kernel import (
    CONV2D,
    CROSS_ENTROPY,
    LANES,
    LINEAR,
    SQUARED_ERROR,
    Chunk,
    Plan,
    Settings,
)
from tinygrad_mnist.compiled.layout import Layout
from tinygrad_mnist.compiled.masks import Masks
from tinygrad_mnist.compiled.plan import ROWS, Rule, first_shape, planned
from tinygrad_mnist.compiled.trunk import PlannedTrunk, check_images, parted
from tinygrad_mnist.compiled.waiting import compiling
from tinygrad_mnist.losses import CrossEntropyLoss, MSELoss
from tinygrad_mnist.module import Module
from tinygrad_mnist.optim import SGD
from tinygrad_mnist.parameter import Parameter

CHUNK = 1024  # samples, about, of a call: some milliseconds between two moments for Ctrl-C


def compile_sgd(
    model: Module, loss: MSELoss | CrossEntropyLoss, optimizer: SGD
) -> Callable[..., tuple[float, float]]:
    """Return `train(inputs, targets, *, order=None, batch_size=1) -> (loss, accuracy)`.

    It does what this loop does, to rounding while the weights are finite, and leaves the same
    parameters, velocities and states of the Dropouts' generators; gradients are cleared::

        order = range(len(inputs)) if order is None else order
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            value = loss(model(inputs[batch]), targets[batch])
            optimizer.zero_grad()
            model.backward(loss.backward())
            optimizer.step()

    and returns the mean of the values, weighted by the samples of each batch, and the fraction of
    samples whose largest output is at the label, or at the target's largest entry (NaN for a single
    output). inputs (N, ...) and targets, (N, K) or labels (N,), may be read-only or memory-mapped:
    they are converted in small parts. Settings, modes and weights are read again at each call.
    Ctrl-C stops it after a chunk of 1024 samples or a batch: parameters, velocities and generators
    are then those of the loop after so many samples.

    model is any nesting of Sequential, Linear, ReLU, Dropout and what else has a row in ROWS. What
    sees images (N, H, W, C) comes first, Conv2d of stride 1 and MaxPool2d among it, then Flatten
    and at least one Linear. loss is an MSELoss or a CrossEntropyLoss, and optimizer an SGD of
    exactly the model's parameters. For all else, also classes derived from these, use the loop
    above.
    """
    check_compilable("compile_sgd", model, loss, optimizer)

    def train(
        inputs: ArrayLike,
        targets: ArrayLike,
        *,
        order: ArrayLike | None = None,
        batch_size: int = 1,
    ) -> tuple[float, float]:
        x = check.real_array("train", "inputs", inputs)
        t = check.real_array("train", "targets", targets)
        batch_size = check.integer("train", "batch_size", batch_size, at_least=1)
        trainer = Trainer("compile_sgd", model, loss, optimizer, x.shape[1:])
        contract = f"inputs of shape (N, {', '.join(map(str, trainer.shape))})"
        if x.ndim == 0 or x.shape[1:] != trainer.shape:
            raise check.value_error("train", contract, x.shape)
        t = trainer.checked_targets("train", t, len(x))
        indices = None if order is None else _indices(order, len(x))
        if not len(x if indices is None else indices):
            return 0.0, 0.0
        check.writeable("train", optimizer.params)
        refuse_shared_memory("train", {"inputs": x, "targets": t}, optimizer)
        return _trained(trainer, x, t, indices, batch_size)

    return train


def check_compilable(owner: str, model: Module, loss: object, optimizer: Any) -> None:
    """Refuse what no kernel can do, as far as one can see before the first sample."""
    rules = _checked(owner, model, loss, optimizer)
    if (shape := first_shape(rules.values())) is not None:
        planned(owner, rules, Layout(optimizer.params), shape, Masks())


def _trained(
    trainer: "Trainer",
    x: NDArray[Any],
    t: NDArray[Any],
    order: NDArray[Any] | None,
    batch_size: int,
) -> tuple[float, float]:
    """Train on the samples in order, a chunk at a time; return mean loss and accuracy."""
    total, hits, n = 0.0, 0.0, len(x) if order is None else len(order)
    chunk_size = max(1, CHUNK // batch_size) * batch_size
    rate, settings = trainer.optimizer.lr, settings_of(trainer.optimizer)
    with holding() as hold, trainer:
        for start in range(0, n, chunk_size):
            hold.let()
            part = slice(start, min(start + chunk_size, n))
            rows = part if order is None else order[part]
            size = part.stop - start
            ends = np.minimum(np.arange(0, size + batch_size, batch_size), size)
            masks = trainer.masks.drawn(size, batch_size)
            done = trainer.train(x[rows], t[rows], ends, masks, rate, settings)
            total += float(done.losses @ np.diff(ends))
            hits += float(np.count_nonzero(done.outputs.argmax(axis=1) == _classes(t[rows])))
    return total / n, hits / n if trainer.outputs > 1 else math.nan


def settings_of(optimizer: Any) -> tuple[float, float, bool]:
    """Return the settings of an SGD that hold for all steps of a call."""
    return optimizer.momentum, optimizer.weight_decay, optimizer.nesterov


class Done(NamedTuple):
    """What came out of some steps."""

    losses: NDArray[np.float64]  # the value of each batch
    n: NDArray[np.float64]  # what each is the mean over
    outputs: FloatArray  # (samples, K): y of each sample, before its batch's step


class Trainer:
    """A model, its loss and its SGD, as the kernels have them: a context.

    Parameters are copied when it is made, velocities when a step first needs them, and both back at
    the end of a `with` block, or by `write_back`. In between, those of the model stay as they were.

    What batch_size it is made for decides the kernel and its threads, so that a short batch alone
    gives the bits that it gives after others.
    """

    def __init__(
        self,
        owner: str,
        model: Module,
        loss: MSELoss | CrossEntropyLoss,
        optimizer: Any,
        shape: tuple[int, ...],
        batch_size: int = 1,
    ) -> None:
        rules = _checked(owner, model, loss, optimizer)
        self.shape = first_shape(rules.values()) or shape
        self.loss, self.optimizer = loss, optimizer
        self.layout, self.masks = Layout(optimizer.params), Masks()
        self.trunk, self.plan = _planned(owner, rules, self.layout, self.shape, self.masks)
        self.outputs = int(self.plan.widths[-1])
        self.flat = self.layout.packed([p.data for p in optimizer.params])
        self.velocity = self.flat[:0].copy()  # none until a step needs it
        self._batch_size = batch_size
        self._largest = 0  # batch so far; a kernel, its call in all parts, and memory fit it
        self._kernel: Any = None
        self._call: Any = None
        self._memory: tuple[Any, ...] = ()

    def __enter__(self) -> "Trainer":
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write back, also after an error."""
        self.write_back()

    def train(
        self,
        x: NDArray[Any],
        t: NDArray[Any],
        ends: NDArray[Any],
        masks: NDArray[np.bool_],
        rates: ArrayLike,
        settings: tuple[float, float, bool],
    ) -> Done:
        """Make a step for each batch: number j has the samples ends[j] to ends[j + 1].

        The targets are what `checked_targets` returns, masks of samples are its own.
        rates are the learning rates of the steps, or that of all. settings, for all steps, are of
        `settings_of`.
        """
        dtype, (momentum, decay, nesterov) = self.flat.dtype, settings
        squares = isinstance(self.loss, MSELoss)
        if momentum and not self.velocity.size:
            self.velocity = self._packed_velocities()
        targets, n = _rows_and_divisors(self.loss, t, ends, self.outputs, dtype)
        with np.errstate(over="ignore"):  # a number too large for the dtype is infinity
            rates = np.full(len(n), rates, dtype)
            used = Settings(
                dtype.type(momentum),
                dtype.type(decay),
                nesterov,
                SQUARED_ERROR if squares else CROSS_ENTROPY,
            )
        chunk = Chunk(
            inputs=_as_read(x.reshape(len(x), -1), dtype),
            targets=_as_read(targets, dtype),
            masks=masks,
            ends=ends,
            rates=rates,
            factors=((2 if squares else 1) / n).astype(dtype),
            outputs=np.empty((len(x), self.outputs), dtype),
            totals=np.empty(len(n)),
        )
        self._run(used, chunk)
        return Done(chunk.totals / n, n, chunk.outputs)

    def _run(self, settings: Settings, chunk: Chunk) -> None:
        size, dtype = max(self._batch_size, int(np.diff(chunk.ends).max())), self.flat.dtype
        if size > self._largest:
            self._prepare(size)
        with compiling(self._kernel, dtype):
            self._call(self.plan, self.flat, self.velocity, settings, chunk, *self._memory)

    def _prepare(self, size: int) -> None:
        """Choose a kernel, threads and memory for batches of up to this size."""
        self._largest, dtype = size, self.flat.dtype
        if self.trunk is not None:
            self._kernel = images.run_images
            parts = threads.threads_for(size * self.trunk.multiply_adds)
            parts = min(parts, -(-size // LANES))
            self._call = partial(threads.run, self._kernel, parts, self.trunk.trunk)
            scratch = batches.new_scratch(self.plan, size, parts, dtype)
            self._memory = scratch, self.trunk.work(parts, size)
        elif size == 1:
            self._kernel = self._call = samples.run_samples
            self._memory = (samples.new_scratch(self.plan, dtype),)
        else:
            self._kernel = batches.run_batches
            products = (self.plan.widths[:-1] * self.plan.widths[1:])[self.plan.kinds == LINEAR]
            parts = threads.threads_for(size * int(products.max()))
            self._call = partial(threads.run, self._kernel, parts)
            self._memory = (batches.new_scratch(self.plan, size, parts, dtype),)

    def checked_targets(self, owner: str, t: NDArray[Any], n: int) -> NDArray[Any]:
        """Return the targets of n samples as `train` takes them, or refuse them."""
        shape = n, self.outputs
        if isinstance(self.loss, MSELoss):
            check.same_shape(owner, "targets", t, shape)
            return t
        if not n:
            return t
        return check.labels_or_rows(owner, t, check.scores(owner, _like(shape, self.flat.dtype)))

    def _packed_velocities(self) -> FloatArray:
        optimizer = self.optimizer
        velocities = optimizer.state_dict()["velocities"]
        return self.layout.packed(velocities or [np.zeros_like(p.data) for p in optimizer.params])

    def write_back(self) -> None:
        """Copy parameters and velocities to where they came from; clear the gradients."""
        optimizer = self.optimizer
        for p, data in zip(optimizer.params, self.layout.windows(self.flat), strict=True):
            p.data = data
            p.zero_grad()
        if self.velocity.size:
            velocities = self.layout.windows(self.velocity)
            optimizer.load_state_dict({**optimizer.state_dict(), "velocities": velocities})


def _planned(
    owner: str, rules: dict[str, Rule], layout: Layout, shape: tuple[int, ...], masks: Masks
) -> tuple[PlannedTrunk | None, Plan]:
    """Return the layers before Flatten if these see images, and all others; add their masks."""
    before, behind = parted(rules)
    if not before:
        return None, planned(owner, rules, layout, shape, masks)
    trunk = PlannedTrunk(owner, before, layout, shape, masks)
    return trunk, planned(owner, behind, layout, (math.prod(trunk.shape),), masks)


def _checked(owner: str, model: Module, loss: object, optimizer: SGD) -> dict[str, Rule]:
    """Return the layers' rules by their paths, or refuse what no kernel can do."""
    remedy = "; use the eager loop"
    rows = rows_of(owner, model, ROWS, remedy)
    rules = {path: _rule(owner, path, layer, row) for path, layer, row in rows}
    contract = "an MSELoss or a CrossEntropyLoss"
    if type(loss) not in (MSELoss, CrossEntropyLoss) or check.has_own_method(loss):
        raise TypeError(check.expected(owner, contract, kind_of(loss) + remedy))
    if type(optimizer) is not SGD or check.has_own_method(optimizer):
        raise TypeError(check.expected(owner, "an SGD", kind_of(optimizer) + remedy))
    if not any(rule.kind == LINEAR for rule in rules.values()):
        raise ValueError(check.expected(owner, "at least one Linear", "none"))
    params = [p for rule in rules.values() for p in (rule.weight, rule.bias) if p is not None]
    own, moved = {id(p) for p in params}, {id(p) for p in optimizer.params}
    if moved != own:
        found = f"one of some{remedy}" if moved < own else "another"
        raise ValueError(check.expected(owner, "an optimizer of the model's parameters", found))
    shared_dtype(owner, params, remedy)
    check_images(owner, rules)
    return rules


def _rule(owner: str, path: str, layer: Module, row: Any) -> Rule:
    """Return what a kernel is told about a layer, or refuse a row that is none."""
    rule = row(layer) if callable(row) else row
    if not (callable(row) and isinstance(rule, Rule)):
        contract = f"a row of ROWS to be a function from layer {path} to a Rule"
        raise check.type_error(owner, contract, rule)
    if rule.kind in (LINEAR, CONV2D) and not isinstance(rule.weight, Parameter):
        contract = f"the Rule of layer {path} to have a Parameter as its weight"
        raise check.type_error(owner, contract, rule.weight)
    return rule


def _rows_and_divisors(
    loss: MSELoss | CrossEntropyLoss,
    t: NDArray[Any],
    ends: NDArray[Any],
    K: int,
    dtype: np.dtype[Any],
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return targets (samples, K), and by what the loss of each batch is divided."""
    sizes = np.diff(ends).astype(np.float64)
    if isinstance(loss, MSELoss):
        n = {"mean": sizes * K, "batchmean": sizes, "sum": np.ones_like(sizes)}[loss.reduction]
        return t, n
    t = t if t.ndim == 1 else t.astype(dtype, copy=False)
    rows, _ = loss.weighted(_like((len(t), K), dtype), t)
    if loss.reduction == "sum":
        return rows, np.ones_like(sizes)
    if t.ndim == 1 and loss.class_weight is not None:
        parts = [t[start:end] for start, end in pairwise(ends)]
        sizes = np.array([loss.weighted(_like((len(p), K), dtype), p)[1] for p in parts])
    return rows, sizes


def _like(shape: tuple[int, ...], dtype: np.dtype[Any]) -> FloatArray:
    """Return an array of this shape and dtype that takes no memory."""
    return np.broadcast_to(dtype.type(0), shape)


def _classes(t: NDArray[Any]) -> NDArray[Any]:
    return t if t.ndim == 1 else t.argmax(axis=1)


def refuse_shared_memory(owner: str, arrays: dict[str, NDArray[Any]], optimizer: Any) -> None:
    """Refuse data that a step of the loop would change: the kernel works on copies."""
    for name, array in arrays.items():
        if any(np.may_share_memory(array, p.data) for p in optimizer.params):
            contract = f"{name} that share no memory with a parameter"
            raise ValueError(check.expected(owner, contract, "a view of one"))


def _as_read(rows: NDArray[Any], dtype: np.dtype[Any]) -> FloatArray:
    """Return rows in dtype and always read-only, so that numba compiles one kernel, not two."""
    view = np.ascontiguousarray(rows, dtype=dtype).view()
    view.flags.writeable = False
    return view


def _indices(order: ArrayLike, n: int) -> NDArray[Any]:
    indices = check.real_array("train", "order", order)
    if indices.size and indices.dtype.kind not in "iu":
        raise TypeError(check.expected("train", "order of indices", f"dtype {indices.dtype}"))
    if indices.ndim != 1 or np.any(indices >= n) or np.any(indices < 0):
        raise ValueError(check.expected("train", f"order of indices in [0, {n})", indices))
    return indices.astype(np.intp)
