"""A pass of per-sample SGD in one compiled kernel (needs the `compiled` extra: numba).

Sample by sample, Python itself is most of the cost of a small network, and work on zeros most of
the rest. Here one kernel runs the whole chain, and leaves zeros out.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist import _blas
from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist._interrupts import holding
from tinygrad_mnist._tables import rows_of, shared_dtype
from tinygrad_mnist.compiled import kernel
from tinygrad_mnist.compiled.plan import ROWS, Rule, drawn_masks, places, planned
from tinygrad_mnist.losses import MSELoss
from tinygrad_mnist.module import Module
from tinygrad_mnist.optim import SGD

_CHUNK = 256  # samples between two moments for Ctrl-C


def compile_sgd(model: Module, loss: MSELoss, optimizer: SGD) -> Callable[..., tuple[float, float]]:
    """Return `train(inputs, targets, *, order=None) -> (loss, accuracy)`: a per-sample SGD pass.

    It does what this loop does, to rounding while the weights are finite, and leaves the same
    parameters, velocities and states of the Dropouts' generators; gradients are cleared::

        for i in range(len(inputs)) if order is None else order:
            value = loss(model(inputs[i]), targets[i])
            optimizer.zero_grad()
            model.backward(loss.backward())
            optimizer.step()

    and returns the mean of the values and the fraction of samples whose largest output is at the
    target's largest entry (NaN for a single output). inputs (N, I) and targets (N, O) may be
    read-only or memory-mapped: they are converted in small parts. Settings, modes and weights are
    read again at each call. Ctrl-C stops it after a chunk of 256 samples: parameters, velocities
    and generators are then those of the loop after so many samples.

    model is any nesting of Sequential, Linear, ReLU, Dropout and what else has a row in ROWS; loss
    is an MSELoss, and optimizer an SGD of exactly the model's parameters. For all else, also
    classes derived from these, use the loop above.
    """
    _checked(model, loss, optimizer)

    def train(
        inputs: ArrayLike, targets: ArrayLike, *, order: ArrayLike | None = None
    ) -> tuple[float, float]:
        plan, rules = _checked(model, loss, optimizer)
        x = check.real_array("train", "inputs", inputs)
        t = check.real_array("train", "targets", targets)
        if x.ndim != 2 or x.shape[1] != plan.widths[0]:
            raise check.value_error("train", f"inputs of shape (N, {plan.widths[0]})", x.shape)
        check.same_shape("train", "targets", t, (len(x), int(plan.widths[-1])))
        indices = None if order is None else _indices(order, len(x))
        if not len(x if indices is None else indices):
            return 0.0, 0.0
        check.writeable("train", optimizer.params)
        _refuse_shared_memory({"inputs": x, "targets": t}, optimizer)
        return _Pass(plan, rules, loss, optimizer).run(x, t, indices)

    return train


def _checked(model: Module, loss: MSELoss, optimizer: SGD) -> tuple[kernel.Plan, list[Rule]]:
    """Return the chain as the kernel needs it, or refuse what the kernel cannot do."""
    owner, remedy = "compile_sgd", "; use the eager loop"
    rules = {path: row(layer) for path, layer, row in rows_of(owner, model, ROWS, remedy)}
    if type(loss) is not MSELoss:
        raise TypeError(check.expected(owner, "an MSELoss", type(loss).__name__ + remedy))
    if type(optimizer) is not SGD:
        raise TypeError(check.expected(owner, "an SGD", type(optimizer).__name__ + remedy))
    if not any(rule.kind == kernel.LINEAR for rule in rules.values()):
        raise ValueError(check.expected(owner, "at least one Linear", "none"))
    params = [p for rule in rules.values() for p in (rule.weight, rule.bias) if p is not None]
    if {id(p) for p in params} != {id(p) for p in optimizer.params}:
        raise ValueError(check.expected(owner, "an optimizer of the model's parameters", "another"))
    shared_dtype(owner, params, remedy)
    return planned(owner, rules, optimizer.params), list(rules.values())


def _refuse_shared_memory(arrays: dict[str, NDArray[Any]], optimizer: SGD) -> None:
    """Refuse data that a step of the loop would change: the kernel works on copies."""
    for name, array in arrays.items():
        if any(np.may_share_memory(array, p.data) for p in optimizer.params):
            contract = f"{name} that share no memory with a parameter"
            raise ValueError(check.expected("train", contract, "a view of one"))


class _Pass:
    """What the kernel works on: parameters and velocities, each flat, in the optimizer's order."""

    def __init__(self, plan: kernel.Plan, rules: list[Rule], loss: MSELoss, optimizer: SGD) -> None:
        self.plan, self.rules, self.optimizer = plan, rules, optimizer
        params = optimizer.params
        dtype = params[0].data.dtype
        self.flat = self._packed([p.data for p in params])
        velocities = optimizer.state_dict()["velocities"] or [np.zeros_like(p.data) for p in params]
        self.velocity = self._packed(velocities) if optimizer.momentum else self.flat[:0]
        self.n = int(plan.widths[-1]) if loss.reduction == "mean" else 1
        numbers = optimizer.lr, optimizer.momentum, optimizer.weight_decay, 2 / self.n
        lr, momentum, decay, slope = map(dtype.type, numbers)
        self.settings = kernel.Settings(lr, momentum, decay, slope, optimizer.nesterov)
        self.factors = np.array([1 / (1 - rule.p) for rule in rules], dtype)
        shape = (len(plan.widths), int(plan.rooms.max()))  # of scratch: a row for each layer
        indices, counts = np.zeros(shape, np.uint32), np.zeros(shape[0], np.int64)
        outputs = np.zeros(shape, dtype)
        inputs, gradients = _as_read(outputs, dtype), np.zeros(shape, dtype)
        self.scratch = kernel.Scratch(outputs, inputs, gradients, indices, counts)

    def run(
        self, x: NDArray[Any], t: NDArray[Any], order: NDArray[Any] | None
    ) -> tuple[float, float]:
        """Train on the samples in order, a chunk at a time; return mean loss and accuracy."""
        total, hits, samples = 0.0, 0, len(x) if order is None else len(order)
        dtype, state = self.flat.dtype, (self.plan, self.flat, self.velocity, self.settings)
        still = self.flat.copy() if self.settings.lr == 0 else None
        chunk_size = _CHUNK if still is None else 1
        with holding() as hold:
            try:
                for start in range(0, samples, chunk_size):
                    hold.let()
                    part = slice(start, start + chunk_size)
                    rows = part if order is None else order[part]
                    chunk = _as_read(x[rows], dtype), _as_read(t[rows], dtype)
                    masks = drawn_masks(self.plan, self.rules, len(chunk[0]))
                    error, correct = kernel.run_samples(
                        *state, *chunk, masks, self.factors, self.scratch
                    )
                    total, hits = total + error / self.n, hits + correct
                    if still is not None:  # BLAS moves nothing for lr = 0; the kernel adds 0 * NaN
                        self.flat[:] = still
            finally:  # also after Ctrl-C
                self._write_back()
        accuracy = hits / samples if t.shape[1] > 1 else math.nan
        return total / samples, accuracy

    def _write_back(self) -> None:
        optimizer = self.optimizer
        for p, data in zip(optimizer.params, self._windows(self.flat), strict=True):
            p.data = data
            p.zero_grad()
        if optimizer.momentum:
            velocities = self._windows(self.velocity)
            optimizer.load_state_dict({**optimizer.state_dict(), "velocities": velocities})

    def _packed(self, arrays: list[FloatArray]) -> FloatArray:
        """Return copies side by side, with zeros behind their rows."""
        *_, (last, _) = places(self.optimizer.params)
        flat = _blas.aligned(np.zeros(last.stop, self.optimizer.params[0].data.dtype))
        for window, array in zip(self._windows(flat), arrays, strict=True):
            window[...] = array
        return flat

    def _windows(self, flat: FloatArray) -> list[FloatArray]:
        """Return views of a flat array, in the shapes of the parameters."""
        params = self.optimizer.params
        return [
            flat[part].reshape(-1, room)[:, : p.data.shape[-1]].reshape(p.data.shape)
            for p, (part, room) in zip(params, places(params), strict=True)
        ]


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
