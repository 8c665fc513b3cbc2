"""Models as ONNX, which other programs and languages run (needs the extra `onnx`).

Each layer of the package has a row in `ROWS`, which adds its nodes to a graph. A row for a custom
layer makes `to_onnx` take it, too::

    ROWS[Swish] = lambda graph, layer, x: graph.node("Mul", x, graph.node("Sigmoid", x))

A row counts for exactly this class, and nobody can check it for you: compare outputs.
"""

import json
import math
import os
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._extras import needing
from tinygrad_mnist._summary import outputs_of
from tinygrad_mnist._tables import output_of, shared_dtype
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import (
    GELU,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
    Unflatten,
)
from tinygrad_mnist.nn._windows import margins
from tinygrad_mnist.parameter import Buffer
from tinygrad_mnist.training._files import write

with needing("tinygrad_mnist.interop.onnx", "onnx"):
    import onnx

Shape = tuple[int, ...]
OPSET = 17  # the first with LayerNormalization; of 2022, and so known almost everywhere

# operators that work entry by entry, so that the order of the axes does not matter
_ENTRYWISE = {"Abs", "Add", "Clip", "Cos", "Div", "Erf", "Exp", "Log", "Max", "Min", "Mul", "Neg"}
_ENTRYWISE |= {"PRelu", "Pow", "Reciprocal", "Relu", "Sigmoid", "Sin", "Softplus", "Sqrt", "Sub"}
_ENTRYWISE |= {"Tanh"}


class Value(NamedTuple):
    """What a node returns: (N, ..., C), or (N, C, ...) if the channels come first."""

    name: str
    shape: Shape  # of a sample here, where the channels are last
    channels_first: bool = False


class Graph:
    """The nodes of a model, which rows add one after another.

    Channels are last, as in the package, but for ONNX's own layers of images: their Values have
    them first, and so have those of what follows entry by entry. They are moved back where a node
    needs them last, so rows need not care.

    An input of a node is a Value; a Parameter or a Buffer, by its name in the model; a number, of
    the model's dtype; an array as it is; the name of an array; or None, where one is left out.
    """

    def __init__(self, model: Module, dtype: np.dtype[Any]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: list[onnx.TensorProto] = []
        self.path = ""  # of the layer whose nodes come next
        self._dtype = dtype
        self._taken = {"", "x", "y"}
        self._model_names = {
            id(buffer): name for name, buffer in (*model.named_parameters(), *model.named_buffers())
        }
        self._names: dict[tuple[int, tuple[int, ...] | None], str] = {}  # of arrays that are there
        self._turned: dict[str, Value] = {}  # the same in the other order

    def node(self, operator: str, *inputs: Any, **attributes: Any) -> Value:
        """Add a node whose features are on the last axis, and return its Value.

        Its shape is taken to be that of the first Value, and after the last node of a row that of
        what the layer returns.
        """
        values = [given for given in inputs if isinstance(given, Value)]
        arrays = [given for given in inputs if not isinstance(given, (Value, int, float))]
        first = operator in _ENTRYWISE and not arrays and any(v.channels_first for v in values)
        turned = [self._turn(v, first) if isinstance(v, Value) else v for v in inputs]
        return self._append(operator, turned, first, attributes)

    def images(self, operator: str, x: Value, *arrays: Any, **attributes: Any) -> Value:
        """Add a node whose channels are on the first axis after the batch, and return its Value."""
        return self._append(operator, [self._turn(x, True), *arrays], True, attributes)

    def join(self, how: str, values: list[Value]) -> Value:
        """Add the nodes that add up values ("add"), or put their channels side by side."""
        if how == "add":
            return reduce(lambda a, b: self.node("Add", a, b), values)
        first = any(value.channels_first for value in values)
        turned = [self._turn(value, first) for value in values]
        return self._append("Concat", turned, first, {"axis": 1 if first else -1})

    def array(self, buffer: Buffer, axes: tuple[int, ...] | None = None) -> str:
        """Return the name of a Parameter or Buffer in the file, its axes in another order."""
        if (id(buffer), axes) not in self._names:
            data = buffer.data if axes is None else buffer.data.transpose(axes)
            name = self._model_names.get(id(buffer), f"{self.path}/constant")
            self._names[id(buffer), axes] = self._stored(name, data)
        return self._names[id(buffer), axes]

    def last(self, value: Value) -> Value:
        """Return a Value with the channels last."""
        return self._turn(value, False)

    def _append(self, operator: str, inputs: list[Any], first: bool, attributes: Any) -> Value:
        shape = next(given.shape for given in inputs if isinstance(given, Value))
        while inputs[-1] is None:
            inputs.pop()
        names = [self._name_of(given) for given in inputs]
        y = self._free(f"{self.path}/{operator}")
        self.nodes.append(onnx.helper.make_node(operator, names, [y], name=y, **attributes))
        return Value(y, shape, first)

    def _turn(self, value: Value, first: bool) -> Value:
        axes = list(range(len(value.shape) + 1))
        if value.channels_first == first or len(axes) < 3:
            return value
        if value.name not in self._turned:
            order = [0, axes[-1], *axes[1:-1]] if first else [0, *axes[2:], 1]
            turned = self._append("Transpose", [value], first, {"perm": order})
            self._turned |= {value.name: turned, turned.name: value}
        return self._turned[value.name]

    def _name_of(self, given: Any) -> str:
        match given:
            case None:
                return ""
            case str():
                return given
            case Value():
                return given.name
            case Buffer():
                return self.array(given)
        dtype = self._dtype if isinstance(given, (int, float)) else None
        return self._stored(f"{self.path}/constant", np.asarray(given, dtype))

    def _stored(self, name: str, array: NDArray[Any]) -> str:
        name = self._free(name)
        self.arrays.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _free(self, name: str) -> str:
        """Return this name, or with a number behind it if it is taken."""
        tried, n = name.removeprefix("/"), 1
        while tried in self._taken:
            tried, n = f"{name.removeprefix('/')}_{n}", n + 1
        self._taken.add(tried)
        return tried


def _linear(graph: Graph, linear: Linear, x: Value) -> Value:
    if len(x.shape) == 1:
        return graph.node("Gemm", x, linear.weight, linear.bias)
    y = graph.node("MatMul", x, linear.weight)
    return y if linear.bias is None else graph.node("Add", y, linear.bias)


def _conv2d(graph: Graph, conv: Conv2d, x: Value) -> Value:
    W = graph.array(conv.weight, (3, 2, 0, 1))  # (kh, kw, I, O) is (O, I, kh, kw) there
    (top, bottom), (left, right) = margins(conv.kernel_size, conv.padding)
    return _of_images(graph, "Conv", conv, x, W, conv.bias, pads=(top, left, bottom, right))


def _of_images(graph: Graph, operator: str, layer: Any, x: Value, *more: Any, **also: Any) -> Value:
    if len(x.shape) != 3:
        contract = f"samples of shape (H, W, C) for layer {graph.path or 'the top'}"
        raise check.value_error("to_onnx", contract, x.shape)
    windows = {"kernel_shape": layer.kernel_size, "strides": layer.stride}
    return graph.images(operator, x, *more, **windows, **also)


def _batch_norm(graph: Graph, norm: BatchNorm, x: Value) -> Value:
    affine, running = (norm.weight, norm.bias), (norm.running_mean, norm.running_var)
    return graph.images("BatchNormalization", x, *affine, *running, epsilon=norm.eps)


def _layer_norm(graph: Graph, norm: LayerNorm, x: Value) -> Value:
    return graph.node("LayerNormalization", x, norm.weight, norm.bias, axis=-1, epsilon=norm.eps)


def _gelu(graph: Graph, _: GELU, x: Value) -> Value:
    erf = graph.node("Erf", graph.node("Div", x, math.sqrt(2)))
    return graph.node("Mul", graph.node("Mul", x, graph.node("Add", erf, 1.0)), 0.5)


def _flatten(graph: Graph, flatten: Flatten, x: Value) -> Value:
    rest, n = x.shape[: -flatten.axes], math.prod(x.shape[-flatten.axes :])
    return graph.node("Reshape", x, np.array([0, *rest, n]))  # 0: as many as x has


def _unflatten(graph: Graph, unflatten: Unflatten, x: Value) -> Value:
    return graph.node("Reshape", x, np.array([0, *x.shape[:-1], *unflatten.shape]))


# a row for each layer: what its nodes return, given those so far, the layer and its input
ROWS: dict[type[Module], Callable[[Graph, Any, Value], Value]] = {
    Linear: _linear,
    ReLU: lambda graph, _, x: graph.node("Relu", x),
    # LeakyRelu has its slope in float32 alone
    LeakyReLU: lambda graph, layer, x: graph.node("PRelu", x, layer.slope),
    Tanh: lambda graph, _, x: graph.node("Tanh", x),
    Sigmoid: lambda graph, _, x: graph.node("Sigmoid", x),
    SiLU: lambda graph, _, x: graph.node("Mul", x, graph.node("Sigmoid", x)),
    GELU: _gelu,
    Softmax: lambda graph, _, x: graph.node("Softmax", x, axis=-1),
    Dropout: lambda _, __, x: x,  # in evaluation mode
    Conv2d: _conv2d,
    MaxPool2d: lambda graph, layer, x: _of_images(graph, "MaxPool", layer, x),
    AvgPool2d: lambda graph, layer, x: _of_images(graph, "AveragePool", layer, x),
    Flatten: _flatten,
    Unflatten: _unflatten,
    BatchNorm: _batch_norm,
    LayerNorm: _layer_norm,
}


def to_onnx(
    model: Module,
    sample_shape: Shape,
    path: str | os.PathLike[str] | None = None,
    **meta: Any,
) -> onnx.ModelProto:
    """Return the model in evaluation mode as ONNX, and write it if there is a path.

    The graph takes "x", a batch of any size of such samples, and returns "y", both in the
    dtype of the parameters. Images keep their channels last. Parameters and Buffers have their
    dotted names; the weight of a Conv2d is (O, I, kh, kw). The operators are those of opset 17,
    where the eps of a norm is a float32. The result has passed `onnx.checker`.

    Args:
        model: Any nesting of Sequential, Residual, Parallel and what has a row in `ROWS`.
        sample_shape: The shape of one sample, such as (784,) or (28, 28, 1).
        path: The file, by convention .onnx; None writes none. It is written whole or not at all.
        meta: Whatever else the program needs that runs the model: names of classes, a scale. Each
            becomes JSON in the `metadata_props` of the file.

    Raises:
        TypeError: A layer without a row, which a subclass is, too, or an object that a method was
            set on; or meta that JSON cannot hold.
        ValueError: Samples of this shape do not fit; or parameters are of two dtypes; or path is a
            folder or a device.
        OSError: The file cannot be written; an old one is still there.
    """
    if not isinstance(model, Module):
        raise check.type_error("to_onnx", "a Module", model)
    shape = check.integers("to_onnx", "sample_shape", sample_shape, at_least=1)
    dtype = shared_dtype("to_onnx", model.parameters())
    with check.refusing("to_onnx", "meta that JSON can hold", TypeError):
        properties = {name: json.dumps(value, allow_nan=False) for name, value in meta.items()}
    graph, y = _graph_of(model, shape, dtype)
    with check.refusing("to_onnx", "rows that add valid nodes"):
        proto = _checked(graph, dtype, shape, y)
    onnx.helper.set_model_props(proto, properties)
    if path is not None:
        write("to_onnx", path, lambda file: file.write(proto.SerializeToString()))
    return proto


def _graph_of(model: Module, shape: Shape, dtype: np.dtype[Any]) -> tuple[Graph, Value]:
    """Return the nodes of a model, and the Value of the last."""
    graph, x = Graph(model, dtype), Value("x", shape)
    with np.errstate(all="ignore"):
        traced = outputs_of(model, np.zeros(shape, int))  # as integers may be looked up, too
    shapes = {path: np.shape(y) for path, _, y in traced}

    def applied(row: Any, path: str, layer: Module, x: Value) -> Value:
        graph.path = path
        y = row(graph, layer, x)
        if not isinstance(y, Value):
            contract = f"the row of {type(layer).__name__} to return a Value"
            raise check.type_error("to_onnx", contract, y)
        return y._replace(shape=shapes[path])

    def joined(how: str, path: str, values: list[Value]) -> Value:
        graph.path = path
        return graph.join(how, values)._replace(shape=shapes[path])

    return graph, graph.last(output_of("to_onnx", model, ROWS, x, applied, joined))


def _checked(graph: Graph, dtype: np.dtype[Any], shape: Shape, y: Value) -> onnx.ModelProto:
    """Return the nodes as a model that has passed ONNX's checks, with the shapes it infers."""
    if y.name == "x":  # no layer had a node
        y = graph.node("Identity", y)
    for node in graph.nodes:
        for names in (node.input, node.output):
            names[:] = ["y" if name == y.name else name for name in names]
    kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    ends = [
        onnx.helper.make_tensor_value_info(name, kind, ["N", *sizes])
        for name, sizes in (("x", shape), ("y", y.shape))
    ]
    content = onnx.helper.make_graph(
        graph.nodes, "tinygrad_mnist", ends[:1], ends[1:], graph.arrays
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    proto = onnx.helper.make_model(
        content,
        producer_name="tinygrad_mnist",
        opset_imports=opsets,
        ir_version=onnx.helper.find_min_ir_version_for(opsets),
    )
    onnx.checker.check_model(proto)
    return onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
