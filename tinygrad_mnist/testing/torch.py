"""check_torch: PyTorch's functions and modules, and your own (needs the extra `torch`)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._extras import needing
from tinygrad_mnist.testing.contracts.function import Function
from tinygrad_mnist.testing.differences.checker import Settings
from tinygrad_mnist.testing.functions import argument_names, called, check_function, distinct
from tinygrad_mnist.testing.report import GradientReport

__all__ = ["check_torch"]

with needing("tinygrad_mnist.testing.torch", "torch"):
    import torch


def check_torch(
    function: Callable[..., Any], *inputs: Any, **settings: Unpack[Settings]
) -> GradientReport:
    """Check a function of tensors, or a module and its parameters, by central differences.

    What is checked is the backward that autograd runs: your own of an `autograd.Function`, or that
    of PyTorch. Draws from PyTorch's generators are the same at each forward, so that a dropout
    keeps its mask. The tensors, the module with its buffers, and the generators are left as found.

    Args:
        function: `apply` of an `autograd.Function`, any function of tensors that returns one, or a
            `torch.nn.Module`, in its present mode. Parameters that need no gradient are left out.
        inputs: Tensors, of float32 or float64, in which they are judged, and on any device. Those
            of integers or bools stay what they are. What is no tensor, or should not be
            differentiated for, belongs into the function: `lambda x: f(x, target, 0.1)`.
        settings: Those of `check_gradients`.

    Raises:
        GradientCheckError: A gradient is wrong; its `report` says where.
        ModuleContractError: The function breaks a rule; its `rule` says how.
        InconclusiveGradientCheck: Too little could be judged to say anything.
    """
    if isinstance(function, type):
        contract = "a function of tensors, such as `apply` of an autograd.Function, or a module"
        raise check.type_error("check_torch", contract, function)
    run = _Run(function, inputs)
    checked = Function(run.name, run.forward, run.vjp, _rewinding(run.devices))
    learned = list(run.arrays)[run.inputs :]
    with _one_thread(), torch.enable_grad():
        return check_function("check_torch", checked, run.arrays, settings, learned)


class _Run:
    """A function of arrays, whose forward keeps what autograd needs for its vjp."""

    def __init__(self, function: Callable[..., Any], inputs: Sequence[Any]) -> None:
        self.function, self.name, self.inputs = function, called(function), len(inputs)
        self.module = function if isinstance(function, torch.nn.Module) else None
        parameters = self.module.named_parameters() if self.module else ()
        self.parameters = {name: p for name, p in parameters if p.requires_grad}
        takes = self.module.forward if self.module else function
        names = distinct([*argument_names(takes, len(inputs)), *self.parameters])
        tensors = dict(zip(names, [*inputs, *self.parameters.values()], strict=True))
        for name, tensor in tensors.items():
            _refuse_unless_judged(name, tensor)
        self.arrays = {name: _numpy(t) for name, t in tensors.items()}
        self.devices = [tensor.device for tensor in tensors.values()]

    def forward(self, *arrays: NDArray[Any]) -> Any:
        pairs = zip(arrays, self.devices, strict=True)
        self.tensors = [torch.from_numpy(array).to(device) for array, device in pairs]
        self.judged = [t.requires_grad_() for t in self.tensors if t.is_floating_point()]
        self.y = self._call(*self.tensors)
        _show_edits(self.tensors, arrays)
        return _numpy(self.y) if isinstance(self.y, torch.Tensor) else self.y

    def vjp(self, dy: NDArray[Any], *arrays: NDArray[Any]) -> list[NDArray[Any] | None]:
        gradients: dict[int, Any] = {}
        if self.y.requires_grad:
            grad_output = torch.from_numpy(dy).to(self.y.device)
            found = torch.autograd.grad(self.y, self.judged, grad_output, allow_unused=True)
            gradients = dict(zip(map(id, self.judged), found, strict=True))
            _show_edits([grad_output, *self.tensors], [dy, *arrays])
        of_each = [gradients.get(id(tensor)) for tensor in self.tensors]
        return [
            np.zeros_like(array) if gradient is None else _numpy(gradient)
            for array, gradient in zip(arrays, of_each, strict=True)
        ]

    def _call(self, *tensors: Any) -> Any:
        if self.module is None:
            return self.function(*tensors)
        parameters = dict(zip(self.parameters, tensors[self.inputs :], strict=True))
        buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        state = parameters | buffers
        return torch.func.functional_call(self.module, state, tensors[: self.inputs])


def _show_edits(tensors: Sequence["torch.Tensor"], arrays: Sequence[NDArray[Any]]) -> None:
    """Copy tensors on a GPU back to their arrays; those on the CPU share memory with them."""
    for tensor, array in zip(tensors, arrays, strict=True):
        if tensor.device.type != "cpu":
            array[...] = _numpy(tensor)


def _numpy(tensor: "torch.Tensor") -> NDArray[Any]:
    # resolved, for the result of a conjugation may be a view that is yet to be negated
    return np.asarray(tensor.detach().cpu().resolve_neg().numpy())


def _refuse_unless_judged(name: str, tensor: object) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise check.type_error("check_torch", f"{name} to be a tensor", tensor)
    kinds = (torch.float32, torch.float64)
    if tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype not in kinds):
        got = f"a tensor of {tensor.dtype}"
        raise TypeError(check.expected("check_torch", f"{name} in float32 or float64", got))


def _rewinding(devices: Sequence["torch.device"]) -> Callable[[], None]:
    """Return what sets PyTorch's generators back to where they are now."""
    on_gpu = {device.index for device in devices if device.type == "cuda"}
    generators = [torch.default_generator, *(torch.cuda.default_generators[i] for i in on_gpu)]
    states = [generator.get_state() for generator in generators]

    def rewind() -> None:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)

    return rewind


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let PyTorch compute in one thread: two on a busy core take 50 times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
