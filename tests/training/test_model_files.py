"""Model files: a whole model comes out as it went in, or is refused; no file makes a large one."""

import math

import numpy as np
import pytest
from helpers import bits, refusal, refusal_starting, traced_memory

from tinygrad_mnist import (
    GELU,
    AvgPool2d,
    BatchNorm,
    Buffer,
    Conv2d,
    Dropout,
    Flatten,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2d,
    Module,
    Parallel,
    Parameter,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
    Unflatten,
)
from tinygrad_mnist.training import checkpoint
from tinygrad_mnist.training._archive import MODEL, read_archive, write_archive
from tinygrad_mnist.training._structure import OF_PACKAGE
from tinygrad_mnist.training.checkpoint import CheckpointError, load_model, save_model


def every_layer():
    """Return a model of rows (64,) with every layer of the package, each with unusual settings."""
    model = Sequential(
        Unflatten((8, 8, 1)),
        Conv2d(1, 4, (3, 5), padding="same", rng=0),
        BatchNorm(4, eps=1e-3, momentum=0.3),
        Residual(Conv2d(4, 6, 3, padding=1, rng=1), GELU(), shortcut=Conv2d(4, 6, 1, bias=False)),
        MaxPool2d(3, stride=(1, 2)),
        AvgPool2d((2, 1)),
        Flatten(),
        Sequential(Linear(54, 8, bias=False, rng=2), LeakyReLU(0.2), Dropout(0.3, rng=3)),
        Residual(Sequential(ReLU(), Sigmoid())),
        Parallel(Linear(8, 4, rng=4), Sequential(Tanh(), SiLU()), join="concat"),
        Parallel(LayerNorm(12, eps=0.1), Sequential(), join="add"),
        Softmax(),
    )
    model(np.random.default_rng(5).random((6, 64)))  # which moves the running means
    return model


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_model_comes_back_with_all_that_predicts(tmp_path, dtype):
    model, path = every_layer().astype(dtype), tmp_path / "model.npz"
    assert {type(module) for module in model.modules()} == {*OF_PACKAGE.values()}
    x = np.random.default_rng(6).random((3, 64))
    save_model(path, model, classes=["a", "b"], mean=np.arange(3.0))
    assert model.training
    loaded, meta = load_model(path)
    assert repr(loaded) == repr(model)
    assert bits(loaded.state_dict()) == bits(model.state_dict())
    assert not any(module.training for module in loaded.modules())
    assert np.array_equal(loaded(x), model.eval()(x))
    assert meta["classes"] == ["a", "b"]
    assert meta["mean"].tolist() == [0, 1, 2]


def test_a_layer_alone_and_a_first_layer_of_data(tmp_path):
    save_model(tmp_path / "model.npz", Linear(3, 2, input_grad=False, rng=0))
    loaded, meta = load_model(tmp_path / "model.npz")
    assert (loaded.in_features, loaded.input_grad, meta) == (3, False, {})


def test_a_loaded_model_draws_again_when_it_trains(tmp_path):
    save_model(tmp_path / "model.npz", Dropout(0.5, rng=0))
    loaded, _ = load_model(tmp_path / "model.npz")
    x = np.ones(1000)
    assert loaded(x).all()
    assert 300 < np.count_nonzero(loaded.train()(x)) < 700


class Swish(Module):
    """A layer of a user's own: an argument that is trained, and one that is a number."""

    def __init__(self, beta, power=1):
        self.beta, self.power = Parameter(beta), power

    def forward(self, x):
        return x**self.power / (1 + np.exp(-self.beta.data * x))

    def backward(self, dy):
        return dy


class Standardize(Swish):
    def __init__(self, mean, layers):
        self.mean, self.layers = Buffer(mean), layers

    def forward(self, x):
        return self.layers[0](x - self.mean.data)


def test_layers_of_ones_own_are_found_by_name(tmp_path):
    own = Standardize(np.arange(3), [Linear(3, 2, rng=0), Tanh()])
    model, path = Sequential(own, Swish([1.0, 2.0], power=2)), tmp_path / "model.npz"
    save_model(path, model)
    loaded, _ = load_model(path, layers=[Swish, Standardize])
    assert bits(loaded.state_dict()) == bits(model.state_dict())
    assert np.array_equal(loaded(np.eye(3)), model(np.eye(3)))
    text = f"load_model: expected {path} to be a whole model file, got 'Swish' at 1, which is not"
    with refusal_starting(CheckpointError, text):
        load_model(path, layers={Standardize})


@pytest.mark.parametrize(
    ("layers", "error", "text"),
    [
        (Swish, TypeError, "expected layers to be classes of Modules, got the class Swish"),
        ([Swish(1.0)], TypeError, "expected layers to be classes of Modules, got a Swish"),
        ([int], TypeError, "expected layers to be classes of Modules, got the class int"),
        (
            [type("Linear", (Swish,), {})],
            ValueError,
            "expected a name of its own for each class of layers, got another Linear",
        ),
    ],
)
def test_what_are_no_classes_of_layers_is_refused(layers, error, text):
    with refusal(error, f"load_model: {text}"):
        load_model("none.npz", layers=layers)


def changed(layer, **attributes):
    for name, value in attributes.items():
        setattr(layer, name, value)
    return layer


class Renamed(Swish):
    def __init__(self, gamma):
        super().__init__(gamma)


class Lambda(Swish):
    def __init__(self, f):
        self.f = f


class Tied(Swish):
    """Its constructor makes the two alike, but they need not stay so."""

    def __init__(self):
        self.a = self.b = Parameter(1.0)


class Counts(Swish):
    def __init__(self):
        self.seen, self.best = Buffer(0), 0.0
        self.limits, self.rng = {"low": [math.nan]}, np.random.default_rng()


def shared():
    model = Sequential(Linear(2, 2, rng=0), Linear(2, 2, rng=1))
    model[1].weight = model[0].weight
    return model


class OwnLinear(Linear):
    pass


UNSAID = {
    "no attribute": (Renamed(1.0), "Renamed at 0.body.0, which does not keep its argument gamma"),
    "a function": (Lambda(np.tanh), "Lambda at 0.body.0, whose f is a ufunc"),
    "another setting": (
        changed(Swish(1.0), _scale=2),
        "Swish at 0.body.0, of which its constructor makes another _scale",
    ),
    "an array": (
        changed(ReLU(), count=np.zeros(2)),
        "ReLU at 0.body.0, of which its constructor makes another count",
    ),
    "a flag": (
        changed(ReLU(), input_grad=False),
        "ReLU at 0.body.0, of which its constructor makes another input_grad",
    ),
    "a weight more": (
        changed(Linear(2, 2), scale=Parameter(1.0)),
        "Linear at 0.body.0, of which its constructor makes another scale",
    ),
    "a NaN": (
        changed(Counts(), best=math.nan),
        "Counts at 0.body.0, of which its constructor makes another best",
    ),
    "another type": (
        changed(Counts(), best=0),
        "Counts at 0.body.0, of which its constructor makes another best",
    ),
    "a dict": (
        changed(Counts(), limits={"low": [0.0]}),
        "Counts at 0.body.0, of which its constructor makes another limits",
    ),
    "floats in place of integers": (
        changed(Counts(), seen=Buffer(0.0)),
        "Counts at 0.body.0, of which its constructor makes another seen",
    ),
    "a shape": (
        changed(Swish(np.ones(2)), power=[1, [2, {3}]]),
        "Swish at 0.body.0, whose power is a set",
    ),
    "a method": (changed(ReLU(), forward=abs), "a custom ReLU at 0.body.0"),
    "a Parameter twice": (shared(), "Linear at 0.body.0.1, whose weight is in two places"),
    "a Parameter no more twice": (
        changed(Tied(), b=Parameter(1.0)),
        "Tied at 0.body.0, of which its constructor makes another b",
    ),
}


@pytest.mark.parametrize("name", UNSAID)
def test_what_would_be_lost_is_refused(tmp_path, name):
    layer, found = UNSAID[name]
    text = f"save_model: expected layers that load_model can make again, got {found}"
    with refusal(TypeError, text) as caught:
        save_model(tmp_path / "model.npz", Sequential(Residual(layer), Tanh()))
    notes = ["If forward keeps it, say so on the class, `_x = None`, and set `self._x`."]
    assert getattr(caught.value, "__notes__", []) == (notes if "makes another" in found else [])
    assert [*tmp_path.iterdir()] == []


def test_a_class_of_the_name_of_another_is_refused(tmp_path):
    other = type("ReLU", (Swish,), {"__init__": lambda self: None})
    text = "save_model: expected a name of its own for each class of layers, got another ReLU"
    with refusal(ValueError, text):
        save_model(tmp_path / "model.npz", Sequential(other()))
    with refusal(TypeError, "save_model: expected a Module, got the class ReLU"):
        save_model(tmp_path / "model.npz", ReLU)


def test_what_a_constructor_makes_alike_needs_no_argument(tmp_path):
    one = Counts()
    one.seen.data = 7
    save_model(tmp_path / "model.npz", one)
    assert load_model(tmp_path / "model.npz", layers=[Counts])[0].seen.data == 7


def test_a_structure_that_is_no_layer_is_refused(tmp_path, content):
    write_archive("test", tmp_path / "a.npz", {**content(), "structure": 3})
    with pytest.raises(CheckpointError, match="to be a whole model file, got 'int' object is not"):
        load_model(tmp_path / "a.npz")


def test_a_class_derived_from_a_layer_is_ones_own(tmp_path):
    save_model(tmp_path / "model.npz", OwnLinear(2, 3))
    assert type(load_model(tmp_path / "model.npz", layers=[OwnLinear])[0]) is OwnLinear
    with pytest.raises(CheckpointError, match="'OwnLinear' at the top"):
        load_model(tmp_path / "model.npz")


def test_each_reader_knows_the_files_of_the_other(tmp_path):
    path, model = tmp_path / "a.npz", Linear(2, 2)
    checkpoint.save(path, model)
    told = "a checkpoint: make its model, and `checkpoint.load(path, model)`"
    with refusal(
        CheckpointError, f"load_model: expected {path} to be a whole model file, got {told}"
    ):
        load_model(path)
    save_model(path, model)
    told = "a model file, which `load_model` reads"
    with refusal(
        CheckpointError, f"checkpoint.load: expected {path} to be a whole checkpoint, got {told}"
    ):
        checkpoint.load(path)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """Return what a model file holds, to be changed."""
    path = tmp_path_factory.mktemp("models") / "a.npz"
    model = Sequential(
        Linear(2, 3, rng=0), Residual(BatchNorm(3), ReLU()), Unflatten((1, 1, 3)), Conv2d(3, 1, 1)
    )
    save_model(path, model, note="five")
    return lambda: read_archive(path, MODEL, 1)


HUGE = 10**9
FORGED = {
    "a Linear of 10**18 weights": (
        lambda layers, _: layers[0].update(in_features=HUGE, out_features=HUGE),
        f"no array of shape ({HUGE}, {HUGE}) for Linear at 0",
    ),
    "a Linear of nothing and much": (
        lambda layers, arrays: (
            layers[0].update(in_features=0, out_features=HUGE),
            arrays.update({"0.weight": np.empty((0, HUGE), np.float32)}),
        ),
        "Linear: expected in_features to be an integer >= 1, got 0",
    ),
    "a Conv2d": (
        lambda layers, _: layers[3].update(kernel_size=(HUGE, HUGE)),
        f"no array of shape ({HUGE}, {HUGE}, 3, 1) for Conv2d at 3",
    ),
    "a BatchNorm": (
        lambda layers, _: layers[1]["layers"][0].update(features=10**11),
        f"no array of shape ({10**11},) for BatchNorm at 1.0",
    ),
    "many layers for one array": (
        lambda layers, _: layers.extend(layers[:1] * 1_000),
        "no array of shape (2, 3) for Linear at 4",
    ),
    "other numbers": (
        lambda layers, arrays: arrays.update({"0.bias": np.zeros(4, np.float32)}),
        "Sequential: expected a state dict of its parameters, "
        "got 0.bias of shape (4,) instead of (3,)",
    ),
    "a parameter less": (
        lambda layers, arrays: arrays.pop("0.bias"),
        "Sequential: expected a state dict of its parameters, got no 0.bias",
    ),
    "a dtype that no parameter has": (
        lambda layers, arrays: arrays.update({"0.bias": np.zeros(3, np.float16)}),
        "Parameter: expected dtype float32 or float64, got float16",
    ),
    "a function": (
        lambda layers, _: layers.append({"class": "eval"}),
        "'eval' at 4, which is not among `layers`",
    ),
    "a base": (
        lambda layers, _: layers.append({"class": "Elementwise"}),
        "'Elementwise' at 4, which is not among `layers`",
    ),
    "a number": (lambda layers, _: layers.append(4), "Sequential: expected layer 4 to be a Module"),
    "another argument": (
        lambda layers, _: layers[0].update(init="eval"),
        "arguments of another class for Linear at 0",
    ),
    "a missing argument": (lambda layers, _: layers[0].pop("in_features"), ""),
    "a setting": (
        lambda layers, _: layers[1]["layers"][0].update(momentum=2),
        "BatchNorm: expected momentum in [0, 1], got 2",
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_file_is_refused_and_allocates_little(tmp_path, content, name):
    change, found = FORGED[name]
    forged, path = content(), tmp_path / "forged.npz"
    forged["structure"]["layers"] = layers = [*forged["structure"]["layers"]]
    change(layers, forged["model"])
    write_archive("test", path, forged)
    text = f"load_model: expected {path} to be a whole model file, got {found}"
    with traced_memory() as memory, refusal_starting(CheckpointError, text):
        load_model(path)
    assert memory.peak < 10_000_000
