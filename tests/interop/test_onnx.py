"""Models as ONNX: onnxruntime computes what we do, and what has no row is refused."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_mnist import Module, Parameter, nn
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
    Parallel,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
    Unflatten,
)

pytest.importorskip("onnx", reason="needs the extra `onnx`")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")
import onnx
import onnxruntime

from tinygrad_mnist.interop.onnx import ROWS, to_onnx

WITHOUT_FLOAT64 = {AvgPool2d, Conv2d, GELU}  # in onnxruntime, on a CPU


def run(proto, x):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(proto.SerializeToString(), options).run(["y"], {"x": x})[0]


def assert_same(model, sample_shape):
    proto = to_onnx(model, sample_shape)
    dtype = next((p.data.dtype for p in model.parameters()), np.float32)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    onnx.checker.check_model(proto, full_check=True)
    x = np.random.default_rng(0).standard_normal((100, *sample_shape)).astype(dtype)
    for n in (1, 7, 100):
        y = model.eval()(x[:n])
        np.testing.assert_allclose(run(proto, x[:n]), y, tolerance, tolerance, strict=True)
    return proto


class Drawn:
    """Layers for samples of some shape, drawn by a seed."""

    def __init__(self, seed, dtype):
        self.rng, self.dtype = np.random.default_rng(seed), dtype

    def one_of(self, *layers):
        usable = [x for x in layers if self.dtype != np.float64 or type(x) not in WITHOUT_FLOAT64]
        return usable[self.rng.integers(len(usable))]

    def model(self, shape, branching=True):
        layers = []
        for _ in range(self.rng.integers(1, 6)):
            branch = branching and self.rng.random() < 0.3
            layers.append(self.branches(shape) if branch else self.layer(shape))
            shape = layers[-1].eval()(np.zeros((1, *shape))).shape[1:]
        return Sequential(*layers)

    def keeping(self, shape):
        """Return a layer whose y has the shape of x."""
        activations = [ReLU(), LeakyReLU(self.rng.random()), Tanh(), Sigmoid(), SiLU(), GELU()]
        # a larger eps, as rounding would be magnified where a sample's entries are nearly equal
        norms = [kind(shape[-1], eps=0.5, dtype=self.dtype) for kind in (BatchNorm, LayerNorm)]
        for norm in norms:
            for name, array in norm.state_dict().items():
                getattr(norm, name).data = self.rng.uniform(0.5, 2, array.shape)
        return self.one_of(*activations, *norms, *norms, Softmax(), Dropout())

    def onto(self, shape, features):
        """Return a layer whose y has this many features."""
        like = {"bias": bool(self.rng.integers(2)), "rng": self.rng, "dtype": self.dtype}
        linear = Linear(shape[-1], features, **like)
        if len(shape) != 3:
            return linear
        kernel = self.rng.integers(1, np.minimum(shape[:2], 3) + 1).tolist()
        return self.one_of(linear, Conv2d(shape[-1], features, kernel, padding="same", **like))

    def layer(self, shape):
        if self.rng.random() < 0.4:
            return self.keeping(shape)
        *rest, C = shape
        features = int(self.rng.integers(1, 6))
        layers = [self.onto(shape, features), Flatten(int(self.rng.integers(1, len(shape) + 1)))]
        layers += [Unflatten((C // n, n)) for n in (2, 3) if C % n == 0]
        if len(shape) == 3:
            kernel, stride, padding = self.rng.integers(0, 3, (3, 2))
            sizes = {"kernel_size": np.minimum(kernel + 1, rest).tolist()}
            sizes["stride"] = (stride + 1).tolist()
            like = {"rng": self.rng, "dtype": self.dtype, "padding": padding.tolist()}
            layers += [MaxPool2d(**sizes), AvgPool2d(**sizes)]
            layers += 2 * [Conv2d(C, features, **sizes, **like)]
        return self.one_of(*layers)

    def branches(self, shape):
        C, features = shape[-1], int(self.rng.integers(1, 6))
        body = self.keeping(shape), self.onto(shape, C)
        by_concat = Parallel(self.keeping(shape), Sequential(*body), self.onto(shape, features))
        by_adding = Parallel(*(self.onto(shape, features) for _ in range(3)), join="add")
        shortcut = self.onto(shape, features)
        both = Residual(self.keeping(shape), self.onto(shape, features), shortcut=shortcut)
        return self.one_of(by_concat, by_adding, both, Residual(self.keeping(shape)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(6,), (4, 6), (7, 6, 2), (2, 3, 4, 2)]))
def test_onnxruntime_computes_what_a_random_model_does(dtype, seed, shape):
    assert_same(Drawn(seed, dtype).model(shape), shape)


def test_every_layer_has_a_row():
    layers = {getattr(nn, name) for name in nn.__all__} - {nn.Elementwise}
    assert ROWS.keys() == layers - {Sequential, Residual, Parallel}


IMAGES = (
    Conv2d(1, 4, 3, rng=0),
    BatchNorm(4),
    SiLU(),
    MaxPool2d(),
    Residual(LeakyReLU(0.1), Conv2d(4, 4, 3, padding="same", rng=1)),
    Flatten(),
    Linear(100, 3, rng=2),
)


def test_channels_are_moved_at_the_borders_of_images_alone():
    proto = assert_same(Sequential(*IMAGES), (12, 12, 1))
    nodes = {node.name: node.op_type for node in proto.graph.node}
    assert [name for name, kind in nodes.items() if kind == "Transpose"] == [
        "0/Transpose",
        "5/Transpose",
    ]
    assert nodes["4.body.1/Conv"] == "Conv"
    assert nodes["4/Add"] == "Add"


def test_channels_are_moved_once_for_all_branches():
    model = Parallel(Conv2d(3, 2, 1, rng=0), Conv2d(3, 2, 1, rng=1), BatchNorm(3))
    proto = assert_same(model, (4, 4, 3))
    assert [node.op_type for node in proto.graph.node].count("Transpose") == 2


def test_the_ends_the_arrays_and_the_opset_are_as_said():
    model = Sequential(*IMAGES)
    proto = to_onnx(model, (12, 12, 1))
    ends = [
        (end.name, end.type.tensor_type.elem_type, [d.dim_param or d.dim_value for d in dims])
        for end in (*proto.graph.input, *proto.graph.output)
        for dims in [end.type.tensor_type.shape.dim]
    ]
    assert ends == [("x", 1, ["N", 12, 12, 1]), ("y", 1, ["N", 3])]
    arrays = {array.name: onnx.numpy_helper.to_array(array) for array in proto.graph.initializer}
    state = model.state_dict()
    assert arrays.keys() - state.keys() == {"4.body.0/constant", "5/constant"}
    for name in ("0.weight", "4.body.1.weight"):
        state[name] = state[name].transpose(3, 2, 0, 1)
    for name, array in state.items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", 17)]
    assert proto.ir_version == 8


@pytest.mark.parametrize(
    "model", [Sequential(), Dropout(), Residual(), Parallel(Residual(), Sequential(), join="add")]
)
def test_models_of_few_nodes(model):
    assert_same(model, (3,))


def test_a_model_in_training_mode_is_written_as_one_to_predict_with():
    model = Sequential(Linear(3, 3, rng=0), Dropout(), BatchNorm(3)).train()
    before = model.state_dict()
    assert_same(model.train(), (3,))
    model.train()
    to_onnx(model, (3,))
    assert model.training
    assert model[2].training
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_shared_parameter_is_there_once():
    one, other = Linear(3, 3, rng=0), Linear(3, 3)
    other.weight = one.weight
    proto = assert_same(Sequential(one, Tanh(), other), (3,))
    assert sorted(array.name for array in proto.graph.initializer) == [
        "0.bias",
        "0.weight",
        "2.bias",
    ]


def test_the_file_is_the_model_and_has_the_meta_as_json(tmp_path):
    meta = {"classes": ["zero", "one"], "scale": 1 / 255}
    proto = to_onnx(Linear(3, 2, rng=0), (3,), tmp_path / "a.onnx", **meta)
    assert onnx.load(tmp_path / "a.onnx") == proto
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    told = session.get_modelmeta().custom_metadata_map
    assert {name: json.loads(value) for name, value in told.items()} == meta


def test_a_folder_is_not_written_to(tmp_path):
    with pytest.raises(ValueError, match="^to_onnx: expected path to be a file, in a folder that"):
        to_onnx(ReLU(), (3,), tmp_path)
    assert not any(tmp_path.iterdir())


class Swish(Module):
    """y = gain * x * sigmoid(x)."""

    def __init__(self, features):
        self.gain = Parameter(np.linspace(1, 2, features))

    def forward(self, x):
        return self.gain.data * x / (1 + np.exp(-np.asarray(x)))

    def backward(self, dy):
        raise NotImplementedError


def swish(graph, layer, x):
    return graph.node("Mul", layer.gain, graph.node("Mul", x, graph.node("Sigmoid", x)))


@pytest.mark.parametrize(
    "model",
    [
        Swish(3),
        Sequential(Conv2d(3, 3, 2, rng=0), Swish(3), MaxPool2d(), Residual(Swish(3))),
    ],
)
def test_a_row_of_your_own(model, monkeypatch):
    monkeypatch.setitem(ROWS, Swish, swish)
    assert_same(model.astype(np.float32), (5, 5, 3))


def test_a_row_may_leave_an_input_out(monkeypatch):
    monkeypatch.setitem(ROWS, ReLU, lambda graph, _, x: graph.node("Clip", x, None, 0.5, None))
    x = np.array([[-1, 0.25, 2]], np.float32)
    np.testing.assert_array_equal(run(to_onnx(ReLU(), (3,)), x), np.minimum(x, 0.5))


class Doubling(Module):
    """y = 2 * input, by a Parameter whose name ONNX needs itself."""

    def __init__(self):
        self.x = Parameter(np.array([2], np.float32))

    def forward(self, x):
        return self.x.data * x

    def backward(self, dy):
        raise NotImplementedError


def test_a_parameter_named_like_the_input_gets_another_name(monkeypatch):
    monkeypatch.setitem(ROWS, Doubling, lambda graph, layer, x: graph.node("Mul", layer.x, x))
    proto = assert_same(Doubling(), (3,))
    assert [array.name for array in proto.graph.initializer] == ["x_1"]


class OwnLinear(Linear):
    """A Linear in all but its class."""


def with_own_forward():
    layer = ReLU()
    layer.forward = lambda x: 2 * x
    return layer


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (Sequential(Tanh(), Sequential(Tanh(), Tanh(), Swish(3))), "Swish at 1.2"),
        (Residual(Tanh(), Swish(3)), "Swish at body.1"),
        (Parallel(Tanh(), OwnLinear(3, 2)), "OwnLinear at 1"),
        (OwnLinear(3, 2), "OwnLinear at the top"),
        (Sequential(with_own_forward()), "a custom ReLU at 0"),
    ],
)
def test_what_has_no_row_is_refused(model, found):
    with pytest.raises(TypeError, match=r"^to_onnx: expected Sequential, .* alone, got ") as caught:
        to_onnx(model, (3,))
    assert str(caught.value).endswith(f" got {found}")


@pytest.mark.parametrize(
    ("model", "sample_shape", "meta", "message"),
    [
        (None, (3,), {}, "to_onnx: expected a Module, got None"),
        (ReLU(), 3, {}, "to_onnx: expected sample_shape to be a tuple of integers, got 3"),
        (Sequential(Linear(3, 2)), (4,), {}, "Sequential, layer 0: Linear: expected x of shape"),
        (Flatten(2), (4,), {}, "Flatten: expected x of 2 axes or more, got "),
        (
            Sequential(MaxPool2d()),
            (2, 4, 4, 1),
            {},
            r"to_onnx: expected samples of shape \(H, W, C\) for layer 0, got \(2, 4, 4, 1\)",
        ),
        (
            Sequential(Linear(3, 3), Linear(3, 3, dtype=np.float64)),
            (3,),
            {},
            "to_onnx: expected parameters of one dtype, got float32 and float64",
        ),
        (ReLU(), (3,), {"mean": np.zeros(2)}, "to_onnx: expected meta that JSON can hold, got "),
        (ReLU(), (3,), {"scale": np.nan}, "to_onnx: expected meta that JSON can hold, got "),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_written(
    model, sample_shape, meta, message, tmp_path
):
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        to_onnx(model, sample_shape, tmp_path / "a.onnx", **meta)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (lambda graph, layer, x: None, "the row of Swish to return a Value, got None"),
        (lambda graph, layer, x: graph.node("Swoosh", x), "rows that add valid nodes, got "),
        (lambda graph, layer, x: graph.node("Unsqueeze", x, np.array([1])), "rows that add valid"),
    ],
)
def test_a_row_that_makes_no_valid_graph_is_refused(row, message, monkeypatch):
    monkeypatch.setitem(ROWS, Swish, row)
    with pytest.raises((ValueError, TypeError), match=f"^to_onnx: expected {message}"):
        to_onnx(Swish(3), (3,))
