"""from_keras: the graph of a Keras model, read from its output back to its input."""

from collections.abc import Iterator
from typing import Any

from tinygrad_mnist import _checks as check
from tinygrad_mnist._tables import listed
from tinygrad_mnist.interop.keras._backend import keras
from tinygrad_mnist.interop.keras.layers import JOINS, PAIRS, Zeros, arrays_of
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Conv2d, Parallel, Residual, Sequential
from tinygrad_mnist.parameter import Buffer, Parameter

_one = keras.Input((1,))
MODELS = (keras.Sequential, type(keras.Model(_one, _one)))  # a functional one has no public name


def from_keras(model: Any) -> Sequential:
    """Return a Sequential with copies of the weights of a keras.Sequential or a functional model.

    Nesting is flattened. Branches that an Add or a Concatenate joins become a Residual, if two are
    added, or else a Parallel. Names become positions. A setting that would be lost is a TypeError
    that names the layer.

    The model is built, with one input and one output, all in float32 or all in float64. Its layers
    have a row in PAIRS, or are Add, Concatenate or models of such layers.
    """
    if type(model) not in MODELS:
        raise check.type_error("from_keras", "a keras.Sequential or a functional model", model)
    if not getattr(model, "inputs", None):
        unbuilt = f"{model.name!r}, not built"
        raise ValueError(check.expected("from_keras", "a built model", unbuilt))
    dtype = model.inputs[0].dtype
    if dtype not in ("float32", "float64"):
        contract = "inputs of dtype float32 or float64"
        raise TypeError(check.expected("from_keras", contract, f"{dtype} in {model.name!r}"))
    return Sequential(*_Reader(dtype).chain_of(model))


class _Reader:
    """Makes modules of Keras tensors, each of which knows its layer and what that was called with.

    Branches begin at a fork: the last tensor that all ways from the input to them lead through.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.weighted: set[int] = set()  # layers whose weights a module has got, by id
        self.forks: dict[int, Any] = {}  # by the tensor in which the branches are joined

    def chain_of(self, model: Any) -> list[Module]:
        """Return the modules that a Keras model is a chain of."""
        if not model.trainable:
            raise _refusal("trainable=False", model)
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise _refusal(f"{len(model.inputs)} inputs, {len(model.outputs)} outputs", model)
        if model.inputs[0].dtype != self.dtype:
            raise _refusal(f"inputs of dtype {model.inputs[0].dtype}", model)
        return self.chain(model.inputs[0], model.outputs[0], set())

    def chain(self, begin: Any, end: Any, read: set[int]) -> list[Module]:
        """Return the modules that lead from one tensor to another, none of which was read before.

        A tensor that is read again is one that a branch leaves from, within another branch.
        """
        found: list[Module] = []
        while end is not begin:
            layer, inputs = _origin(end)
            if id(end) in read:
                raise _refusal("branches that leave one another", layer)
            read.add(id(end))
            if type(layer) in JOINS.values():
                end = self.fork(end)
                branches = [self.chain(end, x, read) for x in inputs]
                modules: list[Any] = [self.joined(layer, branches)]
            else:
                known = type(layer) in MODELS
                modules = self.chain_of(layer) if known else self.translated(layer, inputs)
                (end,) = inputs
            if modules and isinstance(modules[0], Zeros):
                _pad(found, modules.pop(), layer)
            found = [*modules, *found]
        return found

    def fork(self, join: Any) -> Any:
        """Return the tensor at which the branches that are joined in this one begin."""
        if id(join) not in self.forks:
            trunks = [list(self.trunk(x)) for x in _origin(join)[1]]
            shared = set.intersection(*({id(x) for x in trunk} for trunk in trunks))
            self.forks[id(join)] = next(x for x in trunks[0] if id(x) in shared)
        return self.forks[id(join)]

    def trunk(self, x: Any) -> Iterator[Any]:
        """Yield x and, back to the input, the tensors that all ways to x lead through."""
        yield x
        while inputs := _origin(x)[1]:
            x = inputs[0] if len(inputs) == 1 else self.fork(x)
            yield x

    def joined(self, layer: Any, branches: list[list[Module]]) -> Module:
        """Return the Residual or the Parallel that these branches are."""
        _refuse_lost(layer, type(layer)(dtype=self.dtype, name=layer.name))
        if type(layer) is JOINS["concat"]:
            return Parallel(*map(_one_of, branches))
        if len({x.shape for x in layer.input}) > 1:
            raise _refusal("inputs to broadcast", layer)
        if len(branches) > 2:
            return Parallel(*map(_one_of, branches), join="add")
        body, shortcut = branches if branches[0] else reversed(branches)
        return Residual(*body, shortcut=_one_of(shortcut) if shortcut else None)

    def translated(self, layer: Any, inputs: list[Any]) -> list[Any]:
        """Return our layers for one of Keras, called with inputs; refuse what would be lost."""
        pair = {pair.theirs: pair for pair in PAIRS}.get(type(layer))
        if pair is None or len(inputs) != 1:
            raise _refusal(type(layer).__name__, layer)
        if inputs[0].shape != layer.input.shape:  # of its first call, which a row reads
            raise _refusal("inputs of two shapes", layer)
        try:  # first: Keras fails to write down some of the activations that are refused here
            made: list[Any] = list(pair.from_keras(layer))
        except (TypeError, ValueError) as error:
            raise _refusal(str(error), layer) from error
        plain = pair.theirs(**pair.plain, dtype=self.dtype, name=layer.name)
        _refuse_lost(layer, plain, *pair.carried)
        modules = Sequential(*(module for module in made if isinstance(module, Module)))
        arrays = arrays_of(modules.astype(self.dtype))
        _refuse_lost_of_weights(layer, arrays)
        if arrays and id(layer) in self.weighted:
            raise _refusal("the same weights again", layer)
        self.weighted.add(id(layer))
        with check.refusing("from_keras", f"weights that fit layer {layer.name!r}"):
            for array, variable in zip(arrays, layer.weights, strict=True):
                array.data = keras.ops.convert_to_numpy(variable.value)
        return made


def _origin(tensor: Any) -> tuple[Any, list[Any]]:
    """Return the layer that made a Keras tensor, and of which others: of none, if an Input did."""
    layer, call, _ = tensor._keras_history
    node = layer._inbound_nodes[call]
    inputs = list(node.input_tensors)
    for name, value in node.arguments.kwargs.items():
        if value is not None and value is not False:  # which Keras itself calls with
            raise _refusal(f"a call with {name}={check.described(value)}", layer)
    return layer, inputs


def _pad(found: list[Module], zeros: Zeros, layer: Any) -> None:
    """Give zeros to the Conv2d that comes next; refuse anything else there."""
    following = found[0] if found else None
    if not (isinstance(following, Conv2d) and following.padding == (0, 0)):
        raise _refusal("ZeroPadding2D before no Conv2D without padding", layer)
    following.padding = zeros.padding


def _one_of(branch: list[Module]) -> Module:
    return branch[0] if len(branch) == 1 else Sequential(*branch)


def _refuse_lost(layer: Any, plain: Any, *carried: str) -> None:
    """Refuse settings that differ from those of a plain layer, and that nothing here carries."""
    usual = _settings(plain) | {"data_format": "channels_last"}
    for name, value in _settings(layer).items():
        known = name in carried or name.endswith("_initializer")  # whose work is done
        if not known and value != usual.get(name):
            raise _refusal(f"{name}={check.described(value)}", layer)


def _refuse_lost_of_weights(layer: Any, arrays: list[Buffer]) -> None:
    """Refuse what somebody set on a weight of a layer, and that our arrays for it lack."""
    for array, variable in zip(arrays, layer.weights, strict=False):
        usual = {"trainable": isinstance(array, Parameter)}
        for name in ("trainable", "regularizer", "constraint"):
            value = getattr(variable, name)
            if value is not usual.get(name):
                raise _refusal(f"{name}={check.described(value)} of its {variable.name}", layer)


def _settings(layer: Any) -> dict[str, Any]:
    return {**layer.get_config(), "dtype": layer.dtype_policy.name}


def _refusal(found: str, layer: Any) -> TypeError:
    names = {p.theirs.__name__ + (f" ({p.only})" if p.only else ""): None for p in PAIRS}
    known = ["Sequential", *names, *(join.__name__ for join in JOINS.values())]
    got = f"{found} in layer {layer.name!r}"
    return TypeError(check.expected("from_keras", f"{listed(known)} alone", got))
