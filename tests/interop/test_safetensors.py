"""The arrays of a model as a safetensors file, there and back."""

import numpy as np
import pytest

from tinygrad_mnist import Buffer, Dropout, Linear, Module, Parameter, ReLU, Sequential
from tinygrad_mnist.nn import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Flatten,
    LayerNorm,
    MaxPool2d,
    Parallel,
    Residual,
    Softmax,
    Tanh,
    Unflatten,
)
from tinygrad_mnist.training.checkpoint import CheckpointError

pytest.importorskip("safetensors", reason="needs the extra `safetensors`")
from safetensors.numpy import load_file, save_file

from tinygrad_mnist.interop.safetensors import export_safetensors, import_safetensors


def model(seed):
    first, last = Linear(4, 3, rng=seed), Linear(3, 2, rng=seed + 1)
    return Sequential(first, ReLU(), Dropout(0.5, rng=seed), last)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(other[name], array, strict=True)


def test_there_and_back(tmp_path):
    one, other = model(1), model(5)
    export_safetensors(tmp_path / "a.safetensors", one)
    import_safetensors(tmp_path / "a.safetensors", other)
    assert_same(one.state_dict(), other.state_dict())


@pytest.mark.parametrize(("written", "read"), [("torch", "own"), ("own", "torch")])
def test_a_file_of_the_other_layout_is_refused_where_its_shapes_would_fit(tmp_path, written, read):
    square, path = Sequential(Linear(3, 3, rng=1)), tmp_path / "a.safetensors"
    export_safetensors(path, square, layout=written)
    before = square.state_dict()
    with pytest.raises(
        CheckpointError, match=f'that fits, got one written with layout="{written}"'
    ):
        import_safetensors(path, square, layout=read)
    assert_same(before, square.state_dict())


def test_the_library_itself_reads_it(tmp_path):
    export_safetensors(tmp_path / "a.safetensors", model(1))
    assert_same(load_file(tmp_path / "a.safetensors"), model(1).state_dict())


class Counting(Module):
    """y = gain * x; it counts the samples, and keeps their mean."""

    def __init__(self, count, mean):
        self.count = Buffer(np.array(count))
        self.mean = Buffer(np.array(mean))
        self.gain = Parameter(np.ones(2, np.float32))

    def forward(self, x):
        return self.gain.data * x

    def backward(self, dy):
        raise NotImplementedError


def test_buffers_of_floats_and_integers_go_with_the_parameters(tmp_path):
    one, other = (Sequential(Counting(n, [n / 3, 0.5])) for n in (2**60 + 1, 0))
    export_safetensors(tmp_path / "a.safetensors", one)
    import_safetensors(tmp_path / "a.safetensors", other)
    assert_same(one.state_dict(), other.state_dict())
    assert other[0].count.data == 2**60 + 1
    assert other[0].count.data.dtype == np.int64


@pytest.mark.parametrize("fractions", [np.array(1.5), np.array(1, np.int32)])
def test_a_buffer_of_another_dtype_is_refused(tmp_path, fractions):
    other = Sequential(Counting(7, [0.0, 0.0]))
    save_file({**other.state_dict(), "0.count": fractions}, tmp_path / "a.safetensors")
    assert_refused(tmp_path / "a.safetensors", other, f"0.count of {fractions.dtype}, not int64")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda d: d.pop("0.bias"), "got no 0.bias"),
        (lambda d: d.update(x=np.zeros(2)), "got unexpected x"),
        (lambda d: d.update({"0.bias": np.zeros(2, np.float32)}), "0.bias of shape"),
        (lambda d: d.update({"0.bias": np.zeros(3)}), "0.bias of float64, not float32"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, found):
    state = model(1).state_dict()
    change(state)
    save_file(state, tmp_path / "a.safetensors")
    assert_refused(tmp_path / "a.safetensors", model(2), found)


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff" * 8 + b"{}"])
def test_damaged_files_are_refused(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    assert_refused(tmp_path / "a.safetensors", model(2), "")


def assert_refused(path, other, found):
    before = other.state_dict()
    contract = f"^import_safetensors: expected {path} to be a safetensors file that fits, got "
    with pytest.raises(CheckpointError, match=contract) as caught:
        import_safetensors(path, other)
    assert found in str(caught.value)
    assert_same(before, other.state_dict())


def drawn(model):
    """Return the model with random Parameters and Buffers, positive as a variance must be."""
    rng = np.random.default_rng(0)
    model.load_state_dict({n: rng.uniform(0.1, 1, a.shape) for n, a in model.state_dict().items()})
    return model.eval()


def twins(name):
    """Return a model, the same in PyTorch, and the shape of a sample here."""
    import torch
    import torch.nn as there

    class InResidual(there.Module):
        def __init__(self, body, shortcut):
            super().__init__()
            self.body, self.shortcut = body, shortcut

        def forward(self, x):
            return self.body(x) + self.shortcut(x)

    class InParallel(there.Sequential):
        def forward(self, x):
            return torch.cat([branch(x) for branch in self], 1)

    if name == "rows":
        ours = Sequential(
            Sequential(Linear(6, 5, bias=False), BatchNorm(5)), Tanh(), LayerNorm(5), Linear(5, 2)
        )
        theirs = there.Sequential(
            there.Sequential(there.Linear(6, 5, bias=False), there.BatchNorm1d(5)),
            there.Tanh(),
            there.LayerNorm(5),
            there.Linear(5, 2),
        )
        return ours, theirs, (6,)
    if name == "images":
        ours = Sequential(
            BatchNorm(3),
            Conv2d(3, 4, (2, 3), stride=(2, 1), padding=(0, 2)),
            ReLU(),
            AvgPool2d(2),
            Flatten(),
            BatchNorm(40),
            LayerNorm(40),
            Residual(Dropout()),
            Linear(40, 2),
            Linear(2, 3),
        )
        theirs = there.Sequential(
            there.BatchNorm2d(3),
            there.Conv2d(3, 4, (2, 3), stride=(2, 1), padding=(0, 2)),
            there.ReLU(),
            there.AvgPool2d(2),
            there.Flatten(),
            there.BatchNorm1d(40),
            there.LayerNorm(40),
            InResidual(there.Sequential(there.Dropout()), there.Identity()),
            there.Linear(40, 2),
            there.Linear(2, 3),
        )
        return ours, theirs, (9, 8, 3)
    if name == "branches":
        ours = Sequential(
            Residual(Conv2d(3, 4, 3, padding="same"), Softmax(), shortcut=Conv2d(3, 4, 1)),
            Parallel(MaxPool2d(), Sequential(Conv2d(4, 2, 2, stride=2), BatchNorm(2))),
            Flatten(),
            Linear(36, 2),
        )
        theirs = there.Sequential(
            InResidual(
                there.Sequential(there.Conv2d(3, 4, 3, padding="same"), there.Softmax(1)),
                there.Conv2d(3, 4, 1),
            ),
            InParallel(
                there.MaxPool2d(2),
                there.Sequential(there.Conv2d(4, 2, 2, stride=2), there.BatchNorm2d(2)),
            ),
            there.Flatten(),
            there.Linear(36, 2),
        )
        return ours, theirs, (4, 6, 3)
    if name == "beside":  # the Flatten sees images, as the Conv2d in the other branch says
        ours = Parallel(
            Sequential(Tanh(), Flatten(), Linear(18, 2)),
            Sequential(BatchNorm(3), Conv2d(3, 2, 2), Flatten(), Linear(4, 2)),
        )
        theirs = InParallel(
            there.Sequential(there.Tanh(), there.Flatten(), there.Linear(18, 2)),
            there.Sequential(
                there.BatchNorm2d(3), there.Conv2d(3, 2, 2), there.Flatten(), there.Linear(4, 2)
            ),
        )
        return ours, theirs, (3, 2, 3)
    ours = Sequential(
        Linear(12, 16), Unflatten((4, 4, 1)), Conv2d(1, 2, 3), Flatten(), Linear(8, 2)
    )
    theirs = there.Sequential(
        there.Linear(12, 16),
        there.Unflatten(1, (1, 4, 4)),
        there.Conv2d(1, 2, 3),
        there.Flatten(),
        there.Linear(8, 2),
    )
    return ours, theirs, (12,)


@pytest.mark.parametrize("name", ["rows", "images", "branches", "beside", "unflattened"])
def test_pytorch_loads_the_file_and_computes_the_same_and_back(name, tmp_path):
    torch = pytest.importorskip("torch", reason="needs the extra `torch`")
    safetensors = pytest.importorskip("safetensors.torch")
    model, twin, shape = twins(name)
    drawn(model)
    before, path = model.state_dict(), tmp_path / "a.safetensors"
    export_safetensors(path, model, layout="torch")
    twin.load_state_dict(safetensors.load_file(path))
    x = np.random.default_rng(1).standard_normal((3, *shape)).astype(np.float32)
    with torch.no_grad():
        y = twin.eval()(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).numpy()
    np.testing.assert_allclose(y, model(x), rtol=1e-5, atol=1e-5)
    safetensors.save_file(twin.state_dict(), path)  # with num_batches_tracked
    model.load_state_dict({n: np.zeros_like(a) for n, a in before.items()})
    import_safetensors(path, model, layout="torch")
    assert_same(before, model.state_dict())


def shared():
    one, other = Linear(3, 3), Linear(3, 3)
    other.weight = one.weight
    return Sequential(one, other)


@pytest.mark.parametrize(
    ("model", "got"),
    [
        (Sequential(Tanh(), Counting(1, [1.0])), "alone, got Counting at 1"),
        (shared(), "no shared Parameter, got one"),
        (Sequential(MaxPool2d(), Flatten(), Linear(4, 2)), "at 1, got a Flatten of images after"),
        (Sequential(Conv2d(1, 2, 3), Flatten(2)), "at 1, got a Flatten of 2 axes of images"),
        (
            Sequential(Parallel(Tanh(), Conv2d(1, 2, 1)), Linear(3, 3)),
            "at 1, got a Linear on images, whose channels",
        ),
        (Sequential(Conv2d(1, 2, 3), LayerNorm(2)), "at 1, got a LayerNorm on images, whose"),
        (
            Sequential(LayerNorm(2), Residual(Tanh()), Conv2d(2, 2, 3)),
            "at 0, got a LayerNorm on images, whose",
        ),
        (
            Parallel(Sequential(Flatten(), Linear(8, 2)), MaxPool2d()),
            "at 0.0, got a Flatten of images after no layer",
        ),
        (Unflatten((4, 4, 3)), "at the top, got an Unflatten, whose 3 channels would be first"),
        (Sequential(Conv2d(1, 2, 3), Flatten(), MaxPool2d()), "at 2, got a MaxPool2d of flat"),
        (
            Sequential(Conv2d(1, 2, 3), Flatten(), Linear(9, 2)),
            "at 2, got 9 features of flat images with 2 channels",
        ),
        (
            Sequential(Conv2d(1, 2, 3), Flatten(), Parallel(Tanh(), Linear(4, 2))),
            "at 2, got branches with flat images",
        ),
        (
            Sequential(Parallel(Tanh(), BatchNorm(3)), Flatten(), Linear(24, 2)),
            "at 1, got a Flatten of images after no layer that tells",
        ),
    ],
)
def test_what_pytorch_has_not_alike_is_refused(model, got, tmp_path):
    for function in (export_safetensors, import_safetensors):
        with pytest.raises((TypeError, ValueError), match=f"^{function.__name__}: ") as caught:
            function(tmp_path / "a.safetensors", model, layout="torch")
        assert got in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_an_array_of_another_shape_than_pytorchs_is_refused(tmp_path):
    save_file(model(1).state_dict(), tmp_path / "a.safetensors")
    before = (other := model(2)).state_dict()
    with pytest.raises(CheckpointError, match=r"0.weight of shape \(4, 3\) instead of \(3, 4\)"):
        import_safetensors(tmp_path / "a.safetensors", other, layout="torch")
    assert_same(before, other.state_dict())


def test_arrays_of_pytorch_read_as_ones_own_are_refused_with_what_helps(tmp_path):
    theirs = {name: np.ascontiguousarray(a.T) for name, a in model(1).state_dict().items()}
    save_file(theirs, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="instead of") as caught:
        import_safetensors(tmp_path / "a.safetensors", model(1))
    assert 'want `layout="torch"`' in caught.value.__notes__[0]


def test_what_is_no_module_is_refused(tmp_path):
    for function in (export_safetensors, import_safetensors):
        with pytest.raises(TypeError, match=f"^{function.__name__}: expected a Module, got None$"):
            function(tmp_path / "a.safetensors", None)


def test_a_layout_is_one_of_two(tmp_path):
    contract = 'layout "own" or "torch", got \'keras\''
    with pytest.raises(ValueError, match=f"^export_safetensors: expected {contract}$"):
        export_safetensors(tmp_path / "a.safetensors", model(1), layout="keras")
