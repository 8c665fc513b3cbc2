"""MNIST: what is shipped, what is read from a path or from Keras, and what is refused."""

import contextlib
import gzip
import hashlib
import io
import os
import re
import socket
import struct
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import refusal, refusal_starting, traced_memory
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib import format as npy

from tinygrad_mnist.data import mnist

KEYS = ("x_train", "y_train", "x_test", "y_test")
IDX_STEMS = {
    "x_train": ("train-images", "idx3-ubyte"),
    "y_train": ("train-labels", "idx1-ubyte"),
    "x_test": ("t10k-images", "idx3-ubyte"),
    "y_test": ("t10k-labels", "idx1-ubyte"),
}
LOCAL = '"bundled" (20,000 images, shipped), a .npz file or a folder of IDX files'
SOURCES = f'source="keras", "keras-fashion", {LOCAL}'
SEEDS = st.integers(0, 2**32 - 1)
FEW_MB = 4 << 20
# 6 makes another compression of deflate, 0x20 changes the case of letters
MASKS = [0x01, 0x06, 0x20, 0xFF]

both_savers = pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
plain_and_gz = pytest.mark.parametrize("end", ["", ".gz"])
every_key = pytest.mark.parametrize("key", KEYS)


def made(seed=0, train=3, test=2):
    rng = np.random.default_rng(seed)
    counts = dict.fromkeys(KEYS[:2], train) | dict.fromkeys(KEYS[2:], test)
    return {
        key: rng.integers(0, 256, (n, 28, 28), np.uint8)
        if key.startswith("x")
        else rng.integers(0, 10, n, np.uint8)
        for key, n in counts.items()
    }


def four(found):
    (x_train, y_train), (x_test, y_test) = found
    return dict(zip(KEYS, (x_train, y_train, x_test, y_test), strict=True))


def assert_holds(found, arrays):
    for key, array in four(found).items():
        np.testing.assert_array_equal(array, arrays[key], strict=True, err_msg=key)


def npz_bytes(arrays, save=np.savez):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def npy_bytes(array, shape=None):
    """Return the bytes of a .npy file whose header claims shape."""
    file = io.BytesIO()
    header = npy.header_data_from_array_1_0(array)
    npy.write_array_header_1_0(file, header | {"shape": shape or array.shape})
    return file.getvalue() + array.tobytes("A")


def put(path, content):
    """Write a new file: ext4 flushes one that is emptied and written to the disk, slowly."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def write_members(path, arrays, compression=zipfile.ZIP_STORED, **replaced):
    """Write arrays as .npz, with the bytes in replaced for some of its members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for key, array in arrays.items():
            archive.writestr(f"{key}.npy", replaced.get(key) or npy_bytes(array))
    put(path, file.getvalue())


def idx_bytes(array, shape=None, kind=8):
    shape = shape or array.shape
    return struct.pack(f">4B{len(shape)}I", 0, 0, kind, len(shape), *shape) + array.tobytes()


def idx_path(folder, key, end="", separator="-"):
    return folder / (separator.join(IDX_STEMS[key]) + end)


def write_idx(folder, arrays, end="", separator="-"):
    for key, array in arrays.items():
        content = idx_bytes(array)
        path = idx_path(folder, key, end, separator)
        put(path, gzip.compress(content, mtime=0) if end else content)


def npz_contract(path, key):
    array = "uint8 (N, 28, 28)" if key.startswith("x") else "integers (N,)"
    contract = f"{path} to be a .npz file in Keras's layout, {key} of {array}"
    return f"mnist.load_data: expected {contract}"


def refused_npz(path, key, found):
    return refusal(ValueError, f"{npz_contract(path, key)}, got {found}")


def refused_idx(path, ndim, found):
    shape = {3: "(N, 28, 28)", 1: "(N,)"}[ndim]
    contract = f"{path} to be an IDX file of uint8 {shape}"
    return refusal(ValueError, f"mnist.load_data: expected {contract}, got {found}")


def outcome(source):
    """Return what is loaded and "", or None and the message of the ValueError."""
    try:
        return mnist.load_data(source), ""
    except ValueError as error:
        return None, str(error)


def assert_identical_or_refused(source, damaged, arrays):
    found, text = outcome(source)
    if found is None:
        assert text.startswith(f"mnist.load_data: expected {damaged}"), text
    else:
        assert_holds(found, arrays)


def flipped(content, position, mask):
    return content[:position] + bytes([content[position] ^ mask]) + content[position + 1 :]


@contextlib.contextmanager
def few_megabytes():
    with traced_memory() as memory:
        yield
    assert memory.peak < FEW_MB


@pytest.fixture(scope="module")
def bundled():
    return mnist.load_data()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that the examples of Hypothesis may share."""
    return tmp_path_factory.mktemp("mnist")


# What is shipped


def test_bundled_shapes_and_dtypes(bundled):
    arrays = four(bundled)
    assert {key: array.shape for key, array in arrays.items()} == {
        "x_train": (10_000, 28, 28),
        "y_train": (10_000,),
        "x_test": (10_000, 28, 28),
        "y_test": (10_000,),
    }
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.uint8)}


def test_bundled_pixels_are_ink_on_paper(bundled):
    for images in (bundled[0][0], bundled[1][0]):
        assert (images.min(), images.max()) == (0, 255)
        assert 33 < images.mean() < 34
        assert images[:, 14, 14].mean() > 100 > 1 > images[:, 0].mean()


@pytest.mark.parametrize(
    ("split", "counts"),
    [
        (0, [1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978]),
        (1, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
    ],
)
def test_bundled_label_counts(bundled, split, counts):
    assert np.bincount(bundled[split][1]).tolist() == counts


def test_bundled_labels_are_in_the_original_order(bundled):
    assert bundled[0][1][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert bundled[1][1][:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_bundled_is_the_default_and_a_file_like_others(bundled):
    assert_holds(mnist.load_data("bundled"), four(bundled))
    assert_holds(mnist.load_data(Path(mnist.__file__).with_name("mnist_20k.npz")), four(bundled))


def test_bundled_data_that_somebody_changed_are_refused(monkeypatch):
    found = mnist._SHA256
    monkeypatch.setattr(mnist, "_SHA256", "0" * 64)
    text = f"mnist.load_data: expected mnist_20k.npz with SHA-256 {'0' * 64}, got {found}"
    with refusal(ValueError, text):
        mnist.load_data("bundled")


# What is read from a path


@both_savers
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", [str, Path])
def test_npz(tmp_path, save, order, kind):
    arrays = made()
    path = tmp_path / "some.npz"
    save(path, **{key: np.asarray(array, order=order) for key, array in arrays.items()})
    assert_holds(mnist.load_data(kind(path)), arrays)


@given(seed=SEEDS, train=st.integers(1, 9), test=st.integers(1, 9))
def test_npz_and_idx_hold_what_was_written(place, seed, train, test):
    arrays = made(seed, train, test)
    put(place / "any.npz", npz_bytes(arrays))
    write_idx(place, arrays)
    assert_holds(mnist.load_data(place / "any.npz"), arrays)
    assert_holds(mnist.load_data(place), arrays)


def test_npz_of_any_name_with_members_of_any_sort(tmp_path):
    arrays = made()
    path = tmp_path / "digits"
    path.write_bytes(npz_bytes({"extra": np.array(["a", "b"]), **arrays}))
    assert_holds(mnist.load_data(path), arrays)


@plain_and_gz
@pytest.mark.parametrize("separator", ["-", "."])
@pytest.mark.parametrize("kind", [str, Path])
def test_idx_folder(tmp_path, end, separator, kind):
    arrays = made()
    write_idx(tmp_path, arrays, end, separator)
    assert_holds(mnist.load_data(kind(tmp_path)), arrays)


def test_idx_folder_of_mixed_spellings(tmp_path):
    arrays = made()
    spellings = [("", "-"), (".gz", "."), ("", "."), (".gz", "-")]
    for (key, array), spelling in zip(arrays.items(), spellings, strict=True):
        write_idx(tmp_path, {key: array}, *spelling)
    assert_holds(mnist.load_data(tmp_path), arrays)


def test_idx_gz_in_several_members(tmp_path):
    arrays = made()
    write_idx(tmp_path, arrays, ".gz")
    content = idx_bytes(arrays["x_train"])
    path = idx_path(tmp_path, "x_train", ".gz")
    path.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]))
    assert_holds(mnist.load_data(tmp_path), arrays)


@pytest.mark.parametrize("name", ["keras", "keras-fashion", "bundled"])
def test_a_path_is_a_path_whatever_its_name(tmp_path, monkeypatch, name):
    arrays = made()
    (tmp_path / name).write_bytes(npz_bytes(arrays))
    monkeypatch.chdir(tmp_path)
    assert_holds(mnist.load_data(Path(name)), arrays)


# Sources that are none


@pytest.mark.parametrize("source", ["no/such.npz", Path("no/such.npz"), "mnist", "no\0such"])
def test_missing_path(source):
    text = f"expected {SOURCES}, got {str(source)!r}, where there is no file"
    with refusal(FileNotFoundError, f"mnist.load_data: {text}"):
        mnist.load_data(source)


@plain_and_gz
@every_key
def test_missing_idx_file(tmp_path, key, end):
    write_idx(tmp_path, made(), end)
    idx_path(tmp_path, key, end).unlink()
    names = " or ".join(idx_path(Path(), key, separator=separator).name for separator in "-.")
    text = f"mnist.load_data: expected {names}, plain or .gz, in {tmp_path}, got neither"
    with refusal(FileNotFoundError, text):
        mnist.load_data(tmp_path)


def test_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"in {tmp_path}, got neither")):
        mnist.load_data(tmp_path)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (None, "None"),
        (3, "3"),
        (True, "True"),
        (b"bundled", "a bytes"),
        (io.BytesIO(), "a BytesIO"),
        (["bundled"], "a list"),
        (np.zeros((2, 28, 28), np.uint8), "an array of shape (2, 28, 28) and dtype uint8"),
        (Path, "the class Path"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_source(source, found):
    with refusal(TypeError, f"mnist.load_data: expected {SOURCES}, got {found}"):
        mnist.load_data(source)


# Damaged .npz files


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"5 0 4 1 9\n" * 50, npy_bytes(np.zeros((3, 28, 28), np.uint8))],
    ids=["empty", "two-bytes", "text", "npy"],
)
def test_no_npz(tmp_path, content):
    path = tmp_path / "mnist.npz"
    path.write_bytes(content)
    with refused_npz(path, "x_train", "File is not a zip file"):
        mnist.load_data(path)


@both_savers
def test_npz_truncated_anywhere(tmp_path, save):
    content = npz_bytes(made(train=1, test=1), save)
    path = tmp_path / "mnist.npz"
    path.write_bytes(content)
    for cut in reversed(range(len(content))):
        os.truncate(path, cut)
        found, text = outcome(path)
        assert found is None, cut
        assert text.startswith(f"mnist.load_data: expected {path}"), cut


@both_savers
@every_key
def test_npz_member_truncated(tmp_path, save, key):
    arrays = made()
    content = npy_bytes(arrays[key])
    compression = zipfile.ZIP_STORED if save is np.savez else zipfile.ZIP_DEFLATED
    for cut in [*range(1, 129), len(content) - 1]:
        write_members(tmp_path / "mnist.npz", arrays, compression, **{key: content[:cut]})
        found, text = outcome(tmp_path / "mnist.npz")
        assert found is None, cut
        assert text.startswith(npz_contract(tmp_path / "mnist.npz", key)), cut


def structure(content):
    """Return the positions that are no pixels but the first member's headers and the directory.

    With 6 images or more, a member is so large that zipfile returns its header before the
    checksum is known.
    """
    return [*range(200), *range(content.index(b"PK\1\2"), len(content))]


@pytest.mark.slow
@both_savers
@pytest.mark.parametrize("mask", MASKS)
def test_npz_with_a_damaged_byte_in_its_structure(tmp_path, save, mask):
    arrays = made(train=6, test=6)
    content = npz_bytes(arrays, save)
    path = tmp_path / "mnist.npz"
    for position in structure(content):
        put(path, flipped(content, position, mask))
        assert_identical_or_refused(path, path, arrays)


@given(data=st.data(), save=st.sampled_from([np.savez, np.savez_compressed]), n=st.integers(1, 12))
def test_npz_with_damage_anywhere(place, data, save, n):
    arrays = made(n, n, n)
    content = npz_bytes(arrays, save)
    start = data.draw(st.integers(0, len(content) - 1))
    damage = data.draw(st.binary(max_size=8))
    removed = data.draw(st.sampled_from([0, len(damage)]))
    path = place / "damaged.npz"
    put(path, content[:start] + damage + content[start + removed :])
    assert_identical_or_refused(path, path, arrays)


HEADER = "{'descr': '|u1', 'fortran_order': False, 'shape': (6, 28, 28), }"


@pytest.mark.parametrize(
    "header",
    [
        HEADER.replace("}", " "),
        HEADER.replace("(", " "),
        HEADER.replace("28)", "028)"),
        HEADER.replace("'descr'", "b'descr'"),
        HEADER.replace("'descr'", "['descr']"),
        HEADER.replace("'|u1'", "'|u1,,'"),
        HEADER.replace("'|u1'", "()"),
        HEADER.replace("(6", "(6L"),
        HEADER.replace("(6", "(-6"),
        HEADER.replace("(6", "(6.0"),
        HEADER.replace("False", "1"),
        "'''",
        "  a\n b",
        "(" * 3000,
        "-" * 3000 + "1",
        "(" * 199 + "-" * 2000,
        "\0",
        "",
    ],
)
def test_npz_member_whose_header_is_no_header(tmp_path, header):
    arrays = made(train=6, test=6)
    start = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode()
    path = tmp_path / "mnist.npz"
    # one byte too few, so that a header that is understood after all is refused too
    write_members(path, arrays, x_train=start + arrays["x_train"].tobytes()[:-1])
    with refusal_starting(ValueError, npz_contract(path, "x_train")):
        mnist.load_data(path)


@pytest.mark.parametrize("version", [(2, 0), (3, 0), (0, 0), (9, 9)])
def test_npz_member_of_another_format_version(tmp_path, version):
    arrays = made()
    content = npy_bytes(arrays["y_train"])
    path = tmp_path / "mnist.npz"
    write_members(path, arrays, y_train=content[:6] + bytes(version) + content[8:])
    with refused_npz(path, "y_train", f"format version {version}"):
        mnist.load_data(path)


@pytest.mark.parametrize("dtype", ["i1", "u2", "i4", "i8", "u8", ">i2", ">u8"])
def test_npz_with_labels_of_any_dtype_of_integers(tmp_path, dtype):
    arrays = made()
    path = tmp_path / "mnist.npz"
    labels = {key: arrays[key].astype(dtype) for key in ("y_train", "y_test")}
    np.savez(path, **{**arrays, **labels})
    assert_holds(mnist.load_data(path), arrays)


@pytest.mark.parametrize("label", [-1, 10, 256, 2**40])
def test_npz_with_a_label_that_no_byte_could_hold(tmp_path, label):
    path = tmp_path / "mnist.npz"
    np.savez(path, **{**made(train=3), "y_train": [0, label, 9]})
    text = f"mnist.load_data: expected {path} to have labels 0 to 9, got {label}"
    with refusal(ValueError, text):
        mnist.load_data(path)


def test_npz_whose_labels_are_cut_off(tmp_path):
    arrays = made(train=3) | {"y_train": np.array([1, 2, 3])}
    path = tmp_path / "mnist.npz"
    write_members(path, arrays, y_train=npy_bytes(np.arange(2), (3,)))
    with refused_npz(path, "y_train", "16 bytes where shape (3,) has 24"):
        mnist.load_data(path)


NO_IMAGES, NO_LABELS = ["i1", "i8", "f4", "?", ">u2", "S1", "U1"], ["f4", "f8", "?", "S1", "m8[s]"]


@pytest.mark.parametrize(
    ("key", "dtype"),
    [
        *[(key, dtype) for key in ("x_train", "x_test") for dtype in NO_IMAGES],
        *[(key, dtype) for key in ("y_train", "y_test") for dtype in NO_LABELS],
    ],
)
def test_npz_of_another_dtype(tmp_path, key, dtype):
    arrays = made()
    array = arrays[key].astype(dtype)
    path = tmp_path / "mnist.npz"
    np.savez(path, **{**arrays, key: array})
    with refused_npz(path, key, f"dtype {array.dtype} and shape {array.shape}"):
        mnist.load_data(path)


@pytest.mark.parametrize("shape", [(3, 784), (2352,), (1, 3, 28, 28), ()])
def test_npz_of_another_number_of_axes(tmp_path, shape):
    path = tmp_path / "mnist.npz"
    np.savez(path, **{**made(), "x_train": np.zeros(shape, np.uint8)})
    with refused_npz(path, "x_train", f"dtype uint8 and shape {shape}"):
        mnist.load_data(path)


@pytest.mark.parametrize("shape", [(3, 27, 28), (3, 28, 32), (3, 0, 28), (0, 28, 28)])
@pytest.mark.parametrize("key", ["x_train", "x_test"])
def test_npz_of_another_image_size_or_of_none(tmp_path, key, shape):
    path = tmp_path / "mnist.npz"
    np.savez(path, **{**made(), key: np.zeros(shape, np.uint8)})
    with refused_npz(path, key, f"a header that claims shape {shape}"):
        mnist.load_data(path)


@every_key
def test_npz_without_one_member(tmp_path, key):
    arrays = made()
    del arrays[key]
    path = tmp_path / "mnist.npz"
    np.savez(path, **arrays)
    found = f"\"There is no item named '{key}.npy' in the archive\""
    with refused_npz(path, key, found):
        mnist.load_data(path)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@every_key
def test_npz_with_pickles_is_refused_and_they_stay_pickled(tmp_path, key):
    array = np.array([Trap(tmp_path / "unpickled")])
    path = tmp_path / "mnist.npz"
    np.savez(path, **{**made(), key: array})
    with refused_npz(path, key, "dtype object and shape (1,)"):
        mnist.load_data(path)
    assert not (tmp_path / "unpickled").exists()
    with np.load(path, allow_pickle=True) as archive:
        assert archive[key].shape == (1,)
    assert (tmp_path / "unpickled").is_dir()


@pytest.mark.parametrize("claim", [10**12, 1_000_001, 2**63, -1])
@every_key
def test_npz_that_claims_too_many_images(tmp_path, key, claim):
    arrays = made()
    shape = (claim, *arrays[key].shape[1:])
    path = tmp_path / "mnist.npz"
    write_members(path, arrays, **{key: npy_bytes(arrays[key], shape)})
    with few_megabytes(), refused_npz(path, key, f"a header that claims shape {shape}"):
        mnist.load_data(path)


@both_savers
def test_npz_that_claims_as_many_images_as_may_be(tmp_path, save):
    arrays = made()
    content = npy_bytes(arrays["x_train"], (1_000_000, 28, 28))
    compression = zipfile.ZIP_STORED if save is np.savez else zipfile.ZIP_DEFLATED
    path = tmp_path / "mnist.npz"
    write_members(path, arrays, compression, x_train=content)
    found = "2352 bytes where shape (1000000, 28, 28) has 784000000"
    with few_megabytes(), refused_npz(path, "x_train", found):
        mnist.load_data(path)


@every_key
def test_npz_member_with_trailing_bytes(tmp_path, key):
    arrays = made()
    path = tmp_path / "mnist.npz"
    write_members(path, arrays, **{key: npy_bytes(arrays[key]) + b"\0"})
    shape, size = arrays[key].shape, arrays[key].size
    with refused_npz(path, key, f"more bytes where shape {shape} has {size}"):
        mnist.load_data(path)


def test_npz_member_far_longer_than_its_header_says_is_not_unpacked(tmp_path):
    arrays = made()
    path = tmp_path / "mnist.npz"
    bomb = npy_bytes(arrays["x_train"]) + bytes(32 << 20)
    write_members(path, arrays, zipfile.ZIP_DEFLATED, x_train=bomb)
    found = "more bytes where shape (3, 28, 28) has 2352"
    with few_megabytes(), refused_npz(path, "x_train", found):
        mnist.load_data(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_npz_in_a_compression_that_zipfile_unpacks_without_a_bound(tmp_path, method):
    path = tmp_path / "mnist.npz"
    write_members(path, made(), method)
    with refused_npz(path, "x_train", f"compression method {method}"):
        mnist.load_data(path)


def test_npz_member_with_a_huge_header_is_not_unpacked(tmp_path):
    size = 32 << 20
    bomb = b"\x93NUMPY\2\0" + struct.pack("<I", size) + bytes(size)
    path = tmp_path / "mnist.npz"
    write_members(path, made(), zipfile.ZIP_DEFLATED, x_train=bomb)
    with few_megabytes(), refusal_starting(ValueError, npz_contract(path, "x_train")):
        mnist.load_data(path)


# Damaged IDX files


@plain_and_gz
@every_key
def test_idx_truncated_anywhere(tmp_path, key, end):
    write_idx(tmp_path, made(train=1, test=1), end)
    path = idx_path(tmp_path, key, end)
    for cut in reversed(range(path.stat().st_size)):
        os.truncate(path, cut)
        found, text = outcome(tmp_path)
        assert found is None, cut
        assert text.startswith(f"mnist.load_data: expected {path} to be an IDX file of"), cut


@pytest.mark.parametrize("mask", [0x01, 0xFF])
def test_idx_gz_with_a_damaged_byte(tmp_path, mask):
    arrays = made(train=1, test=1)
    write_idx(tmp_path, arrays, ".gz")
    path = idx_path(tmp_path, "x_train", ".gz")
    content = path.read_bytes()
    for position in range(len(content)):
        put(path, flipped(content, position, mask))
        assert_identical_or_refused(tmp_path, path, arrays)


@given(data=st.data(), key=st.sampled_from(KEYS))
def test_idx_gz_with_damage_anywhere(tmp_path_factory, data, key):
    folder = tmp_path_factory.mktemp("gz")
    arrays = made(train=6, test=6)
    write_idx(folder, arrays, ".gz")
    path = idx_path(folder, key, ".gz")
    content = path.read_bytes()
    start = data.draw(st.integers(0, len(content) - 1))
    damage = data.draw(st.binary(min_size=1, max_size=8))
    put(path, content[:start] + damage + content[start + len(damage) :])
    assert_identical_or_refused(folder, path, arrays)


@plain_and_gz
@every_key
def test_idx_with_a_damaged_header(tmp_path, key, end):
    arrays = made()
    write_idx(tmp_path, arrays, end)
    path = idx_path(tmp_path, key, end)
    content = idx_bytes(arrays[key])
    for position, bit in np.ndindex(4 + 4 * arrays[key].ndim, 8):
        damaged = flipped(content, position, 1 << bit)
        put(path, gzip.compress(damaged, 1) if end else damaged)
        found, text = outcome(tmp_path)
        assert found is None, position
        assert text.startswith(f"mnist.load_data: expected {path} to be an IDX file of"), position


@plain_and_gz
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "magic number 0x"),
        (b"\0\0\x08", "magic number 0x000008"),
        (b"5 0 4 1 9\n" * 100, "magic number 0x35203020"),
        (idx_bytes(np.zeros(3, np.uint8)), "magic number 0x00000801"),
        (idx_bytes(np.zeros((3, 28, 28), np.int8), kind=9), "magic number 0x00000903"),
        (idx_bytes(np.zeros((3, 28, 28), ">f4"), kind=13), "magic number 0x00000d03"),
        (b"\0\0\x08\3\0\0\0\3\0\0", "a header cut off after 10 bytes"),
        (idx_bytes(np.zeros((3, 27, 28), np.uint8)), "a header that claims shape (3, 27, 28)"),
        (idx_bytes(np.zeros((3, 28, 32), np.uint8)), "a header that claims shape (3, 28, 32)"),
        (idx_bytes(np.zeros((0, 28, 28), np.uint8)), "a header that claims shape (0, 28, 28)"),
        (
            idx_bytes(np.zeros(2351, np.uint8), (3, 28, 28)),
            "2351 bytes where shape (3, 28, 28) has 2352",
        ),
        (
            idx_bytes(np.zeros(2353, np.uint8), (3, 28, 28)),
            "more bytes where shape (3, 28, 28) has 2352",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_idx_of_images_that_is_none(tmp_path, end, content, found):
    write_idx(tmp_path, made(), end)
    path = idx_path(tmp_path, "x_train", end)
    path.write_bytes(gzip.compress(content) if end else content)
    with refused_idx(path, 3, found):
        mnist.load_data(tmp_path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"garbage", "Not a gzipped file (b'ga')"),
        (gzip.compress(idx_bytes(np.zeros(3, np.uint8))) + b"xy", "Not a gzipped file (b'xy')"),
        (gzip.compress(b"garbage"), "magic number 0x67617262"),
    ],
    ids=["no-gz", "trailing-bytes", "gz-of-garbage"],
)
def test_idx_gz_that_is_none(tmp_path, content, found):
    write_idx(tmp_path, made(), ".gz")
    path = idx_path(tmp_path, "y_train", ".gz")
    path.write_bytes(content)
    with refused_idx(path, 1, found):
        mnist.load_data(tmp_path)


@plain_and_gz
@pytest.mark.parametrize("claim", [2**32 - 1, 1_000_001])
@every_key
def test_idx_that_claims_too_many_images(tmp_path, key, end, claim):
    arrays = made()
    write_idx(tmp_path, arrays, end)
    path = idx_path(tmp_path, key, end)
    shape = (claim, *arrays[key].shape[1:])
    content = idx_bytes(arrays[key], shape)
    path.write_bytes(gzip.compress(content) if end else content)
    found = f"a header that claims shape {shape}"
    with few_megabytes(), refused_idx(path, arrays[key].ndim, found):
        mnist.load_data(tmp_path)


@plain_and_gz
def test_idx_that_claims_as_many_images_as_may_be(tmp_path, end):
    arrays = made()
    write_idx(tmp_path, arrays, end)
    path = idx_path(tmp_path, "x_train", end)
    content = idx_bytes(arrays["x_train"], (1_000_000, 28, 28))
    path.write_bytes(gzip.compress(content) if end else content)
    found = "2352 bytes where shape (1000000, 28, 28) has 784000000"
    with few_megabytes(), refused_idx(path, 3, found):
        mnist.load_data(tmp_path)


def test_idx_gz_far_longer_than_its_header_says_is_not_unpacked(tmp_path):
    arrays = made()
    write_idx(tmp_path, arrays, ".gz")
    path = idx_path(tmp_path, "x_train", ".gz")
    path.write_bytes(gzip.compress(idx_bytes(arrays["x_train"]) + bytes(32 << 20), 1))
    found = "more bytes where shape (3, 28, 28) has 2352"
    with few_megabytes(), refused_idx(path, 3, found):
        mnist.load_data(tmp_path)


# Images and labels that do not belong together


def written(folder, arrays, form):
    """Write arrays in a form and return what to load."""
    if form == "npz":
        np.savez(folder / "mnist.npz", **arrays)
        return folder / "mnist.npz"
    write_idx(folder, arrays)
    return folder


every_form = pytest.mark.parametrize("form", ["npz", "idx"])


@every_form
@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("labels", [1, 4])
def test_unequal_lengths(tmp_path, form, part, labels):
    arrays = made(train=3, test=3)
    arrays[f"y_{part}"] = np.zeros(labels, np.uint8)
    source = written(tmp_path, arrays, form)
    contract = f"{source} to have as many {part} labels as images (3)"
    with refusal(ValueError, f"mnist.load_data: expected {contract}, got {labels}"):
        mnist.load_data(source)


@every_form
@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("label", [10, 255])
def test_label_above_9(tmp_path, form, part, label):
    arrays = made()
    arrays[f"y_{part}"][1] = label
    source = written(tmp_path, arrays, form)
    text = f"mnist.load_data: expected {source} to have labels 0 to 9, got {label}"
    with refusal(ValueError, text):
        mnist.load_data(source)


# Keras


@pytest.fixture
def backend(monkeypatch):
    """Have what load_data does to the environment undone after the test."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")


NO_KERAS = "mnist.load_data: expected the extra `keras` (pip install 'tinygrad_mnist[keras]')"
KERAS_MODULES = ("keras", "keras.datasets", "keras.datasets.mnist")
BY_KERAS = {"keras": "mnist", "keras-fashion": "fashion_mnist"}
both_by_keras = pytest.mark.parametrize(("source", "name"), BY_KERAS.items(), ids=BY_KERAS)


def put_in_place_of_keras(monkeypatch, **load_data):
    for name in KERAS_MODULES:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["keras"].datasets = sys.modules["keras.datasets"]
    for name, function in load_data.items():
        data_set = types.SimpleNamespace(load_data=function)
        monkeypatch.setattr(sys.modules["keras.datasets"], name, data_set, raising=False)


@pytest.mark.usefixtures("backend")
def test_each_name_is_a_data_set_of_keras(monkeypatch):
    digits, clothes = ((0, 1), (2, 3)), ((4, 5), (6, 7))
    put_in_place_of_keras(monkeypatch, mnist=lambda: digits, fashion_mnist=lambda: clothes)
    assert mnist.load_data("keras") == digits
    assert mnist.load_data("keras-fashion") == clothes


@pytest.mark.usefixtures("backend")
def test_without_keras(monkeypatch):
    for name in KERAS_MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f"^{re.escape(NO_KERAS)}, got import of keras.* halted"):
        mnist.load_data("keras")


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    "failure",
    [
        ModuleNotFoundError("No module named 'jax'"),
        ValueError("Unable to import backend : nonsense"),
    ],
    ids=["missing", "unknown"],
)
def test_without_a_backend_of_keras(tmp_path, monkeypatch, failure):
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "__init__.py").write_text(f"raise {failure!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in KERAS_MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    with refusal(ImportError, f"{NO_KERAS}, got {failure}"):
        mnist.load_data("keras")


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("before", "after"), [(None, "jax"), ("torch", "torch")])
def test_backend_is_jax_unless_chosen(monkeypatch, before, after):
    put_in_place_of_keras(monkeypatch, mnist=lambda: ((0, 1), (2, 3)))
    if before is None:
        monkeypatch.delenv("KERAS_BACKEND")
    else:
        monkeypatch.setenv("KERAS_BACKEND", before)
    assert mnist.load_data("keras") == ((0, 1), (2, 3))
    assert os.environ["KERAS_BACKEND"] == after


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", [Exception, OSError, ValueError])
@both_by_keras
def test_download_that_fails(monkeypatch, source, name, kind):
    def load_data():
        raise kind("URL fetch failure")

    put_in_place_of_keras(monkeypatch, **{name: load_data})
    contract = f"Keras to download {name} (without a network: source={LOCAL})"
    text = f"mnist.load_data: expected {contract}, got URL fetch failure"
    with refusal(ConnectionError, text) as caught:
        mnist.load_data(source)
    assert type(caught.value.__cause__) is kind


@pytest.fixture
def keras_cache(tmp_path, monkeypatch, backend):
    """Return the folder in which the real Keras keeps data sets, cut off from the network."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    pytest.importorskip("keras")
    # KERAS_HOME is read when Keras is imported, perhaps by an earlier test
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))

    def no_network(*_args, **_kwargs):
        raise socket.gaierror("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    (tmp_path / "datasets").mkdir()
    return tmp_path / "datasets"


@pytest.mark.slow
@both_by_keras
def test_download_that_fails_in_keras(keras_cache, source, name):
    contract = f"Keras to download {name} (without a network: source={LOCAL})"
    text = f"mnist.load_data: expected {contract}, got URL fetch failure on https://"
    with pytest.raises(ConnectionError, match=f"^{re.escape(text)}.*no network in this test$"):
        mnist.load_data(source)
    assert not [path for path in keras_cache.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_file_in_the_cache_of_keras(keras_cache, monkeypatch):
    arrays = made()
    content = npz_bytes(arrays)
    (keras_cache / "mnist.npz").write_bytes(content)
    module = sys.modules["keras.src.datasets.mnist"]
    # Keras asks for the SHA-256 of the 70,000 images: have it ask for that of these
    own = {"file_hash": hashlib.sha256(content).hexdigest()}
    get_file = module.get_file
    monkeypatch.setattr(module, "get_file", lambda **told: get_file(**{**told, **own}))
    assert_holds(mnist.load_data("keras"), arrays)


@pytest.mark.slow
def test_files_of_fashion_in_the_cache_of_keras_and_in_a_folder_of_ones_own(keras_cache):
    arrays = made()
    folder = keras_cache / "fashion-mnist"
    folder.mkdir()
    write_idx(folder, arrays, ".gz")
    assert_holds(mnist.load_data("keras-fashion"), arrays)
    assert_holds(mnist.load_data(folder), arrays)


@pytest.mark.slow
def test_another_file_in_the_cache_of_keras_is_not_taken_for_mnist(keras_cache):
    (keras_cache / "mnist.npz").write_bytes(npz_bytes(made()))
    with pytest.raises(ConnectionError, match="got URL fetch failure on https://"):
        mnist.load_data("keras")


# preprocess


def digits(seed=0, n=3):
    arrays = made(seed, n, n)
    return arrays["x_train"], arrays["y_train"]


both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@both_dtypes
@given(seed=SEEDS, n=st.integers(0, 4))
def test_preprocess_equals_a_loop(dtype, seed, n):
    images, labels = digits(seed, n)
    inputs, targets = mnist.preprocess(images, labels, dtype)
    pixels = [[p / 255 for row in image for p in row] for image in images.tolist()]
    hot = [[1 if c == label else 0 for c in range(10)] for label in labels.tolist()]
    wanted_inputs = np.array(pixels, dtype).reshape(n, 784)
    np.testing.assert_array_equal(inputs, wanted_inputs, strict=True)
    np.testing.assert_array_equal(targets, np.array(hot, dtype).reshape(n, 10), strict=True)


@pytest.mark.parametrize("shape", [(1, 1), (32, 20), (2, 3, 4), (32, 32, 3), (0, 5)])
@pytest.mark.parametrize("n", [0, 2])
def test_preprocess_makes_a_row_of_an_image_of_any_size(shape, n):
    images = np.random.default_rng(0).integers(0, 256, (n, *shape), np.uint8)
    inputs, targets = mnist.preprocess(images, np.arange(n))
    wanted = np.array([[p / 255 for p in image.flat] for image in images], np.float32)
    np.testing.assert_array_equal(inputs, wanted.reshape(n, np.prod(shape)), strict=True)
    np.testing.assert_array_equal(targets, np.eye(10, dtype=np.float32)[:n], strict=True)


@both_dtypes
def test_preprocess_divides_every_pixel_exactly(dtype):
    images = np.arange(784).reshape(1, 28, 28).astype(np.uint8)
    inputs, _ = mnist.preprocess(images, [0], dtype)
    np.testing.assert_array_equal(inputs, images.reshape(1, 784) / dtype(255), strict=True)
    assert (inputs.min(), inputs.max()) == (0, 1)


def test_preprocess_is_float32_by_default():
    inputs, targets = mnist.preprocess(*digits())
    assert (inputs.dtype, targets.dtype) == (np.float32, np.float32)


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda a: np.repeat(a, 2, axis=0)[::2]])
def test_preprocess_of_any_layout(layout):
    images, labels = digits()
    wanted = mnist.preprocess(images, labels)
    found = mnist.preprocess(layout(images), layout(labels))
    np.testing.assert_array_equal(found[0], wanted[0], strict=True)
    np.testing.assert_array_equal(found[1], wanted[1], strict=True)


def test_preprocess_modifies_nothing():
    images, labels = digits()
    kept = images.copy(), labels.copy()
    images.setflags(write=False)
    labels.setflags(write=False)
    inputs, targets = mnist.preprocess(images, labels)
    inputs += 1
    targets += 1
    np.testing.assert_array_equal(images, kept[0], strict=True)
    np.testing.assert_array_equal(labels, kept[1], strict=True)


IMAGES, LABELS = digits()
SHAPES = "images of shape (N, H, W) or (N, H, W, C)"


@pytest.mark.parametrize(
    ("images", "labels", "error", "text"),
    [
        (IMAGES / 255, LABELS, TypeError, "expected images of dtype uint8, got float64"),
        (IMAGES.astype(int), LABELS, TypeError, "expected images of dtype uint8, got int64"),
        (IMAGES > 0, LABELS, TypeError, "expected images of dtype uint8, got bool"),
        (None, LABELS, TypeError, "expected images to be an array of real numbers, got None"),
        (
            np.ma.masked_array(IMAGES),
            LABELS,
            TypeError,
            "expected images to be an array of real numbers, got a masked array",
        ),
        (
            IMAGES.reshape(3, 784),
            LABELS,
            ValueError,
            f"expected {SHAPES}, got (3, 784)",
        ),
        (
            IMAGES[..., None, None],
            LABELS,
            ValueError,
            f"expected {SHAPES}, got (3, 28, 28, 1, 1)",
        ),
        (IMAGES[0], LABELS, ValueError, f"expected {SHAPES}, got (28, 28)"),
        (np.uint8(3), LABELS, ValueError, f"expected {SHAPES}, got ()"),
        (IMAGES, LABELS[:2], ValueError, "expected labels of shape (3,), got (2,)"),
        (IMAGES[:1], LABELS, ValueError, "expected labels of shape (1,), got (3,)"),
        (IMAGES, LABELS[:, None], ValueError, "expected labels of shape (3,), got (3, 1)"),
        (IMAGES, 5, ValueError, "expected labels of shape (3,), got ()"),
        (
            IMAGES,
            ["1", "2", "3"],
            TypeError,
            "expected labels to be an array of real numbers, got an array of dtype <U1",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_preprocess_refusals(images, labels, error, text):
    with refusal(error, f"mnist.preprocess: {text}"):
        mnist.preprocess(images, labels)


@pytest.mark.parametrize(
    ("labels", "error", "text"),
    [
        ([0, 10, 9], ValueError, "expected labels in [0, 10), got 10"),
        ([0, -1, 9], ValueError, "expected labels in [0, 10), got -1"),
        ([0.0, 1.0, 2.0], TypeError, "expected labels to be integers, got dtype float64"),
        ([True, False, True], TypeError, "expected labels to be integers, got dtype bool"),
    ],
)
def test_preprocess_refuses_labels_as_one_hot_does(labels, error, text):
    with refusal(error, f"one_hot: {text}"):
        mnist.preprocess(IMAGES, labels)


@pytest.mark.parametrize(
    ("dtype", "found"),
    [(np.float16, "float16"), (int, "int64"), (">f4", ">f4"), (None, "None"), ("no", "'no'")],
)
def test_preprocess_refuses_other_dtypes(dtype, found):
    with refusal(TypeError, f"mnist.preprocess: expected dtype float32 or float64, got {found}"):
        mnist.preprocess(IMAGES, LABELS, dtype)


def test_the_digits_of_mnist_are_in_the_form_of_mnist():
    """It repeats what the makers of MNIST did: their images come out as they are."""
    (_, _), (images, _) = mnist.load_data()
    for image in images[:200]:
        np.testing.assert_allclose(mnist.size_normalized(image), image / image.max(), atol=1e-6)


@pytest.mark.parametrize("shape", [(280, 130), (33, 61), (20, 20), (7, 4)])
def test_a_digit_of_any_size_is_scaled_as_pillow_does_and_centred(shape):
    image = pytest.importorskip("PIL.Image", reason="needs the extra `plot`")
    ink = np.random.default_rng(0).uniform(0.1, 9, shape).astype(np.float32)
    height, width = (round(20 * n / max(shape)) for n in shape)
    scaled = image.fromarray(ink).resize((width, height), image.Resampling.BILINEAR)
    wanted = np.asarray(scaled) / np.max(scaled)
    found = mnist.size_normalized(np.pad(ink, ((3, 50), (90, 0))))  # wherever it was drawn
    assert (found.dtype, found.shape, found.max()) == (np.float32, (28, 28), 1)
    rows, columns = (np.flatnonzero(found.any(axis=axis)) for axis in (1, 0))
    np.testing.assert_allclose(found[np.ix_(rows, columns)], wanted, atol=1e-6)
    for axis in (0, 1):
        centre = np.average(np.arange(28), weights=found.sum(axis=1 - axis))
        assert abs(centre - 14) <= 0.5


@pytest.mark.parametrize(("shape", "box"), [((280, 9), (20, 1)), ((2, 280), (1, 20))])
def test_a_line_keeps_a_pixel_of_width(shape, box):
    rows, columns = np.nonzero(mnist.size_normalized(np.ones(shape)))
    assert (len(set(rows)), len(set(columns))) == box


def test_ink_far_from_the_middle_stays_inside():
    ink = np.zeros((20, 20))
    ink[0, 0], ink[19, 19] = 1, 0.001  # nearly all of it is in one corner
    found = mnist.size_normalized(ink)
    np.testing.assert_allclose(found[8:, 8:], ink, rtol=1e-6)


def test_what_is_no_ink_is_refused():
    owner = "mnist.size_normalized: expected"
    with refusal(ValueError, f"{owner} ink of shape (H, W), got (2, 3, 1)"):
        mnist.size_normalized(np.ones((2, 3, 1)))
    blank, none = np.zeros((3, 3)), np.zeros((0, 3))
    for ink in (blank, none, np.eye(3) - 0.1, np.diag([1, np.nan, 1]), np.diag([1, np.inf, 1])):
        got = f"an array of shape {ink.shape} and dtype float64"
        with refusal(ValueError, f"{owner} ink >= 0, some of it > 0, got {got}"):
            mnist.size_normalized(ink)
