"""The structure of a model: a tree of the classes of its layers, and their constructors' arguments.

A layer is a dict: the name of its class as "class", and its arguments by name, other layers among
them. An argument is the attribute of the same name, as every layer of `nn` has it.
"""

import inspect
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist import nn
from tinygrad_mnist._generators import attributes
from tinygrad_mnist._tables import kind_of
from tinygrad_mnist.module import Module
from tinygrad_mnist.parameter import Buffer

Classes = Mapping[str, type[Module]]
Structure = dict[str, Any]
MakeError = Callable[..., TypeError]  # of (module, fault)
Shapes = Counter[tuple[int, ...]]

OF_PACKAGE: Classes = {
    name: kind for name in nn.__all__ if not inspect.isabstract(kind := getattr(nn, name))
}
_PLAIN = (int, float, str, np.generic)
_LEFT_OUT = ("init", "rng", "dtype")  # a file has the arrays, and a loaded model new generators

# The shape of what a constructor allocates. The file must have an array of that shape for each such
# layer before it is made: a forged one might ask for any number of bytes.
_ALLOCATED: dict[type[Module], Callable[..., tuple[int, ...]]] = {
    nn.Linear: lambda in_features, out_features, **_: (in_features, out_features),
    nn.Conv2d: lambda kernel_size, in_channels, out_channels, **_: (
        *kernel_size,
        in_channels,
        out_channels,
    ),
    nn.BatchNorm: lambda features, **_: (features,),
    nn.LayerNorm: lambda features, **_: (features,),
}


def structure_of(owner: str, model: Module) -> Structure:
    """Return the structure of a model; refuse one that `built` would not make again."""
    places = {id(module): name or "the top" for name, module in model.named_modules()}

    def cannot_rebuild(module: Module, fault: str = "") -> TypeError:
        got = f"{kind_of(module)} at {places[id(module)]}{fault}"
        return check.refusal(TypeError, owner, "layers that load_model can make again", got)

    _refuse_own_methods_and_ties(model, cannot_rebuild)
    structure = _layer(model, cannot_rebuild)
    known = classes(owner, {type(module) for module in model.modules()} - {*OF_PACKAGE.values()})
    shapes = Counter(array.shape for array in model.state_dict().values())
    with check.refusing(owner, "layers that load_model can make again", TypeError):
        twin = built(structure, known, shapes)
    for module, name in _differences(model, twin):
        raise cannot_rebuild(module, f", of which its constructor makes another {name}")
    return structure


def classes(owner: str, own: Iterable[type[Module]]) -> Classes:
    """Return the layers of the package and these by the names of their classes."""
    if not isinstance(own, Iterable):
        raise check.type_error(owner, "layers to be classes of Modules", own)
    found = {**OF_PACKAGE}
    for kind in own:
        if not (isinstance(kind, type) and issubclass(kind, Module)):
            raise check.type_error(owner, "layers to be classes of Modules", kind)
        if found.setdefault(kind.__name__, kind) is not kind:
            contract = "a name of its own for each class of layers"
            raise ValueError(check.expected(owner, contract, f"another {kind.__name__}"))
    return found


def built(layer: Any, known: Classes, shapes: Shapes, path: str = "") -> Module:
    """Return the model of a structure; raise whatever, if it is none.

    Args:
        layer: What `structure_of` returned, or anything that was read from a file.
        known: The classes by name.
        shapes: Of all arrays that are to go into the model; those that a layer takes are removed.
        path: Where the layer is.
    """
    name, where = layer["class"], path or "the top"
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"{check.described(name)} at {where}, which is not among `layers`")
    kind, given = known[name], layer.keys() - {"class"}
    arguments = {n: p for n, p in _arguments(kind).items() if n in given}
    if given > arguments.keys():
        raise ValueError(f"arguments of another class for {name} at {where}")
    call = inspect.signature(kind).bind_partial()
    for n, parameter in arguments.items():
        within = path if parameter.kind is parameter.VAR_POSITIONAL else _below(path, n)
        call.arguments[n] = _value(layer[n], known, shapes, within)
    if kind in _ALLOCATED:
        shape = _ALLOCATED[kind](**call.arguments)
        if not shapes[shape]:
            raise ValueError(f"no array of shape {shape} for {name} at {where}")
        shapes[shape] -= 1
    return kind(*call.args, **call.kwargs)


def _value(value: Any, known: Classes, shapes: Shapes, path: str) -> Any:
    if isinstance(value, dict):
        return built(value, known, shapes, path)
    if isinstance(value, (list, tuple)):
        items = enumerate(value)
        return type(value)(_value(item, known, shapes, _below(path, i)) for i, item in items)
    return value


def _below(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _arguments(kind: type[Module]) -> dict[str, inspect.Parameter]:
    """Return what a file says of the arguments of a constructor."""
    parameters = inspect.signature(kind).parameters.items()
    return {
        name: p for name, p in parameters if name not in _LEFT_OUT and p.kind is not p.VAR_KEYWORD
    }


def _layer(module: Module, cannot_rebuild: MakeError) -> Structure:
    found = {**vars(module), **module._hyperparameters()}  # the latter say whether there is a bias
    layer: Structure = {"class": type(module).__name__}
    for name in _arguments(type(module)):
        if name not in found and not hasattr(module, name):
            raise cannot_rebuild(module, f", which does not keep its argument {name}")
        value = found[name] if name in found else getattr(module, name)
        layer[name] = _argument(module, name, value, cannot_rebuild)
    return layer


def _argument(module: Module, name: str, value: Any, cannot_rebuild: MakeError) -> Any:
    """Return an argument as a file can hold it."""
    if isinstance(value, Module):
        return _layer(value, cannot_rebuild)
    if type(value) in (list, tuple):
        return type(value)(_argument(module, name, item, cannot_rebuild) for item in value)
    value = value.data if isinstance(value, Buffer) else value
    if not (value is None or isinstance(value, (*_PLAIN, np.ndarray))):
        raise cannot_rebuild(module, f", whose {name} is {check.described(value)}")
    return value


def _refuse_own_methods_and_ties(model: Module, cannot_rebuild: MakeError) -> None:
    """Refuse a method that was set on an object, and what is in two places."""
    seen = set()
    for module in model.modules():
        if check.has_own_method(module):
            raise cannot_rebuild(module)
        for name, member in module._members():
            if id(member) in seen:
                raise cannot_rebuild(module, f", whose {name} is in two places")
            seen.add(id(member))


def _differences(model: Module, twin: Module) -> Iterator[tuple[Module, str]]:
    """Yield (module, attribute) where two models differ in more than numbers in arrays."""
    same: dict[int, int] = {}
    for module, other in zip(model.modules(), twin.modules(), strict=False):
        one, two = _state(module), _state(other)
        for name in {**one, **two}:
            known = name in one and name in two and _alike(one[name], two[name], same)
            if not known and name != "training":
                yield module, name


def _state(module: Module) -> dict[str, Any]:
    """Return the attributes that forward has not kept, those in slots among them."""
    return {n: v for n, v in attributes(module).items() if not module._is_kept(n, v)}


def _alike(a: Any, b: Any, same: dict[int, int]) -> bool:
    """Return whether both are the same values; what is one object in a, is one in b."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (Module, Buffer)):  # the modules inside have their turn
        paired = (same.setdefault(id(a), id(b)), same.setdefault(id(b), id(a))) == (id(b), id(a))
        return paired and (isinstance(a, Module) or _same_kind(a.data, b.data))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(_alike(x, y, same) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key], same) for key in a)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, (np.random.Generator, np.random.RandomState, random.Random)):
        return True
    return a is b or (isinstance(a, _PLAIN) and bool(a == b or (a != a and b != b)))  # both NaN


def _same_kind(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Return whether `load_model` can set b to a: it converts floats alone."""
    return a.shape == b.shape and (a.dtype == b.dtype or a.dtype.kind == b.dtype.kind == "f")
