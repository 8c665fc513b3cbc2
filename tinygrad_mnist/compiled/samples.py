"""A pass of per-sample SGD in one compiled kernel (needs the `compiled` extra: numba).

Sample by sample, Python itself is most of the cost of a small network, and work on zeros most of
the rest: four fifths of MNIST's pixels are 0. Here one generic kernel runs the whole chain, with
the rules of the layers side by side, and neither reads nor updates the weights of a zero input.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist._tables import checked_parameters, flattened, is_plain, is_shared
from tinygrad_mnist.compiled.kernel import (
    DROPOUT,
    LINEAR,
    NOWHERE,
    RELU,
    Plan,
    Settings,
    run_samples,
)
from tinygrad_mnist.losses import MSELoss
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Dropout, Linear, ReLU
from tinygrad_mnist.optim import SGD
from tinygrad_mnist.parameter import Parameter

Train = Callable[..., tuple[float, float]]

_KINDS: dict[type, int] = {Linear: LINEAR, ReLU: RELU, Dropout: DROPOUT}
_CHUNK = 256  # samples between two looks at Ctrl-C


def compile_sgd(model: Module, loss: MSELoss, optimizer: SGD) -> Train:
    """Return `train(inputs, targets, *, order=None) -> (loss, accuracy)`: a per-sample SGD pass.

    It does what this loop does, to rounding while the weights are finite, and leaves the same
    parameters, velocities and states of the Dropouts' generators; gradients are cleared::

        for i in range(len(inputs)) if order is None else order:
            value = loss(model(inputs[i]), targets[i])
            optimizer.zero_grad()
            model.backward(loss.backward())
            optimizer.step()

    and returns the mean of the values and the part of samples whose largest output is at the
    target's largest entry. inputs (N, I) and targets (N, O) may be read-only or memory-mapped: they
    are converted in small parts. Settings, modes and weights are read anew at each call. Ctrl-C
    stops it within a fraction of a second, between two samples.

    Args:
        model: Any nesting of Sequential, Linear, ReLU and Dropout.
        loss: An MSELoss.
        optimizer: An SGD of exactly the model's parameters.

    Raises:
        TypeError: Anything else; use the loop above. train refuses arrays that are not numbers.
        ValueError: Widths that do not fit, or an optimizer of other parameters. train refuses
            arrays of other shapes, or an order that is not of indices.
    """
    _checked(model, loss, optimizer)

    def train(
        inputs: ArrayLike, targets: ArrayLike, *, order: ArrayLike | None = None
    ) -> tuple[float, float]:
        plan, layers, params = _checked(model, loss, optimizer)
        x, t = (
            check.real_array("train", "inputs", inputs),
            check.real_array("train", "targets", targets),
        )
        if x.ndim != 2 or x.shape[1] != plan.widths[0]:
            raise ValueError(
                check.expected("train", f"inputs of shape (N, {plan.widths[0]})", x.shape)
            )
        check.same_shape("train", "targets", t, (len(x), int(plan.widths[-1])))
        indices = None if order is None else _indices(order, len(x))
        if not len(x if indices is None else indices):
            return 0.0, 0.0
        check.writeable("train", (p.data for p in params))
        return _run(plan, layers, params, loss, optimizer, x, t, indices)

    return train


def _checked(
    model: Module, loss: MSELoss, optimizer: SGD
) -> tuple[Plan, list[Module], list[Parameter]]:
    """Return the chain, its layers and their parameters, or refuse what the kernel cannot do."""
    named = dict(flattened(model))
    layers = list(named.values())
    for layer in layers:
        if not is_plain(layer):
            raise TypeError(_refusal("Sequential, Linear, ReLU and Dropout alone", layer))
    if type(loss) is not MSELoss:
        raise TypeError(_refusal("an MSELoss", loss))
    if type(optimizer) is not SGD:
        raise TypeError(_refusal("an SGD", optimizer))
    linears = {name: layer for name, layer in named.items() if isinstance(layer, Linear)}
    params = checked_parameters("compile_sgd", linears)
    if is_shared(params):
        raise TypeError(_refusal("no shared Parameter", "one"))
    if {id(p) for p in params} != {id(p) for p in optimizer.params}:
        raise ValueError(
            check.expected("compile_sgd", "an optimizer of the model's parameters", "another")
        )
    # refuses settings that were set to what they cannot mean
    SGD(params, optimizer.lr, optimizer.momentum, optimizer.weight_decay, optimizer.nesterov)
    return _planned(layers), layers, params


def _refusal(contract: str, found: object) -> str:
    got = found if isinstance(found, str) else type(found).__name__
    return check.expected("compile_sgd", contract, f"{got}; use the eager loop")


def _planned(layers: list[Module]) -> Plan:
    """Return the chain in numbers; parameters lie one behind the other, in order."""
    first = next(layer for layer in layers if isinstance(layer, Linear))
    widths, rows = [first.weight.data.shape[0]], []
    parameters = masked = 0
    for layer in layers:
        width, weight, bias, mask = widths[-1], NOWHERE, NOWHERE, NOWHERE
        if isinstance(layer, Linear):
            width = layer.weight.data.shape[1]
            weight, parameters = parameters, parameters + layer.weight.data.size
            if layer.bias is not None:
                bias, parameters = parameters, parameters + width
        elif isinstance(layer, Dropout):
            mask, masked = masked, masked + width
        widths.append(width)
        rows.append((_KINDS[type(layer)], weight, bias, mask))
    kinds, weights, biases, masks = np.array(rows, np.int64).T.copy()
    return Plan(kinds, np.array(widths, np.int64), weights, biases, masks)


def _run(
    plan: Plan,
    layers: list[Module],
    params: list[Parameter],
    loss: MSELoss,
    optimizer: SGD,
    x: NDArray[Any],
    t: NDArray[Any],
    order: NDArray[Any] | None,
) -> tuple[float, float]:
    """Run the kernel over the samples in order, a chunk at a time, on flat copies of the arrays."""
    dtype = params[0].data.dtype
    flat = _aligned(sum(p.data.size for p in params), dtype)
    np.concatenate([p.data.reshape(-1) for p in params], out=flat)
    velocity = _flat_velocity(optimizer, params) if optimizer.momentum else np.zeros_like(flat[:0])
    factors = np.array([_factor(layer) for layer in layers], dtype)
    n = t.shape[1] if loss.reduction == "mean" else 1
    settings = _settings(optimizer, 2 / n, dtype)
    scratch = _scratch(plan, dtype)
    total, correct, samples = 0.0, 0, len(x) if order is None else len(order)
    try:
        for start in range(0, samples, _CHUNK):
            part = slice(start, start + _CHUNK)
            rows = part if order is None else order[part]
            rows_x, rows_t = _as_read(x[rows], dtype), _as_read(t[rows], dtype)
            masks = _drawn_masks(plan, layers, len(rows_x))
            value, hits = run_samples(
                plan, flat, velocity, settings, rows_x, rows_t, masks, factors, scratch
            )
            total, correct = total + value / n, correct + hits
    finally:  # also after Ctrl-C
        _write_back(flat, velocity, params, optimizer)
    return total / samples, correct / samples


def _aligned(size: int, dtype: np.dtype[Any]) -> FloatArray:
    """Return an empty array that starts with a cache line: fewer vectors lie across two."""
    raw = np.empty(size * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size * dtype.itemsize].view(dtype)


def _write_back(
    flat: FloatArray, velocity: FloatArray, params: list[Parameter], optimizer: SGD
) -> None:
    for p, data in zip(params, _split(flat, params), strict=True):
        p.data = data
        p.zero_grad()
    if optimizer.momentum:
        of = dict(zip(map(id, params), _split(velocity, params), strict=True))
        velocities = [of[id(p)] for p in optimizer.params]
        optimizer.load_state_dict({**optimizer.state_dict(), "velocities": velocities})


def _scratch(plan: Plan, dtype: np.dtype[Any]) -> tuple[NDArray[Any], ...]:
    """Return the room that run_samples works in: a row for each layer."""
    shape = (len(plan.widths), int(plan.widths.max()))
    indices, counts = np.zeros(shape, np.int64), np.zeros(shape[0], np.int64)
    return np.zeros(shape, dtype), np.zeros(shape, dtype), indices, counts


def _settings(optimizer: SGD, slope: float, dtype: np.dtype[Any]) -> Settings:
    of = dtype.type
    lr, momentum, decay = of(optimizer.lr), of(optimizer.momentum), of(optimizer.weight_decay)
    return Settings(lr, momentum, decay, bool(optimizer.nesterov), of(slope))


def _as_read(rows: NDArray[Any], dtype: np.dtype[Any]) -> FloatArray:
    """Return rows in dtype, read-only whether they were or not: one type for the compiler."""
    with np.errstate(under="ignore"):  # too small for float32 is 0
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


def _flat_velocity(optimizer: SGD, params: list[Parameter]) -> FloatArray:
    """Return the optimizer's velocities in the order of params, zeros before its first step."""
    velocities = optimizer.state_dict()["velocities"] or [
        np.zeros_like(p.data) for p in optimizer.params
    ]
    of = dict(zip(map(id, optimizer.params), velocities, strict=True))
    return np.concatenate([of[id(p)].reshape(-1) for p in params], dtype=params[0].data.dtype)


def _split(flat: FloatArray, params: list[Parameter]) -> list[FloatArray]:
    ends = np.cumsum([p.data.size for p in params])
    parts = np.split(flat, ends[:-1])
    return [part.reshape(p.data.shape) for part, p in zip(parts, params, strict=True)]


def _drops(layer: Module) -> bool:
    return isinstance(layer, Dropout) and layer.training and layer.p > 0


def _factor(layer: Module) -> float:
    return 1 / (1 - layer.p) if isinstance(layer, Dropout) and _drops(layer) else 1.0


def _drawn_masks(plan: Plan, layers: list[Module], samples: int) -> NDArray[np.bool_]:
    """Return what each Dropout would draw for each sample, side by side: (samples, all widths).

    Layers of one generator take turns at every sample, so it draws for all of them at once.
    """
    width = plan.widths[1:]
    masks = np.ones((samples, int(width[plan.masks != NOWHERE].sum())), np.bool_)
    sharing: dict[int, list[int]] = {}
    for i, layer in enumerate(layers):
        if isinstance(layer, Dropout) and _drops(layer):
            sharing.setdefault(id(layer.rng.bit_generator), []).append(i)
    for indices in sharing.values():
        first: Any = layers[indices[0]]
        draws = first.rng.random((samples, int(width[indices].sum())), dtype=np.float32)
        for i, part in zip(
            indices, np.split(draws, np.cumsum(width[indices])[:-1], 1), strict=True
        ):
            dropout: Any = layers[i]
            masks[:, plan.masks[i] : plan.masks[i] + width[i]] = part >= dropout.p
    return masks
