"""The arrays of a model as a safetensors file, there and back."""

import numpy as np
import pytest

from tinygrad_mnist import Buffer, Dropout, Linear, Module, Parameter, ReLU, Sequential
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
