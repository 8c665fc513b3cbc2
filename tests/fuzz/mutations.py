"""Changes to files that get past what would refuse a random byte: checksums, lengths, syntax.

Each function takes a `random.Random`: the same seed makes the same change.
"""

import copy
import io
import json
import math
import re
import warnings
import zipfile

import numpy as np

_DEEP = "nested too deep to parse"
_VALUES = [
    *(None, True, False, 0, 1, -1, 2, 3, 7, 0.5, -0.0, 1e308, math.nan, math.inf),
    *(2**31, 2**53, 2**63 - 1, 2**63, 2**64, 2**128, 10**400, -(2**63)),
    *("Linear", "ReLU", "Sequential", "Residual", "Parallel", "BatchNorm", "add", "concat", "same"),
    *("", "x", "0.weight", "PCG64", "MT19937", "F64", "BF16", "BOOL", "loss", _DEEP),
    *([], {}, [[]], [1, 2], {"": 0}),
    *({"dict": {}}, {"tuple": [1]}, {"array": "tree"}, {"array": "model/0.bias"}, {"array": 1}),
]
_KEYS = [
    "class",
    "layers",
    "bias",
    "",
    "x",
    "loss",
    "epoch",
    "array",
    "dict",
    "tuple",
    "shape",
    "__metadata__",
    "\ud800",
]
_DTYPES = "'<f4' '>f4' '<f8' '<f2' '<f16' '<f3' '|u1' '|i1' '|b1' '<i8' '<c8' '|O' '<U1' '|V4'"
_DTYPES = [*_DTYPES.split(), "'<M8[s]'", "[('a', '<f4')]", "('<f4', (3,))", "None", "1"]
_SHAPES = [
    *("()", "(0,)", "(1,)", "(3,)", "(12,)", "(3, 4)", "(4, 3)", "(3, 2)", "(-1,)", "(1.5,)"),
    *("(0, 9223372036854775807)", "(4294967296, 4294967296)", "(10000000000000,)", "3", "(3"),
    *("(1, 28, 28)", "(2, 28, 28)", "(28, 28, 2)", "(2, 784)", "(1000001, 28, 28)", "(0, 28, 28)"),
    f"({'1, ' * 70})",
]
_METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


def any_bytes(data, rng):
    """Change, insert, remove or repeat some bytes anywhere."""
    at, length = rng.randrange(len(data) + 1), rng.choice([1, 1, 2, 4, 8, 64, 1000])
    old = data[at : at + length]
    flipped = bytes(byte ^ (1 << rng.randrange(8)) for byte in old)
    new = rng.choice([b"", old + old, flipped, rng.randbytes(length), b"\xff" * length, data[:at]])
    return data[:at] + new + data[at + length :]


def json_text(text, rng, part=None):
    """Change one to three places of what JSON says, half of the time in one part of it.

    Args:
        text: JSON in UTF-8.
        rng: Draws the changes.
        part: Returns that part, given all.
    """
    try:
        root = [json.loads(text)]
        start = [part(root[0])] if part and rng.random() < 0.5 else root
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            _change_place(start, rng)
        changed = json.dumps(root[0]) if root else ""
    except (ValueError, LookupError, TypeError, RecursionError):  # changed too much before
        return any_bytes(text, rng)
    return changed.replace(f'"{_DEEP}"', "[" * 3000 + "]" * 3000).encode()


def _change_place(root, rng):
    if not root:
        return
    holder, key = _place(root, rng)
    value, change = holder[key], rng.randrange(6)
    other, place = _place(root, rng)
    if change == 0:
        del holder[key]
    elif change == 1 and isinstance(holder, dict):
        holder[rng.choice([*_KEYS, str(place)])] = holder.pop(key)
    elif change == 1:
        holder.insert(key, value)
    elif change == 2:
        holder[key] = copy.deepcopy(other[place])  # or it might hold itself
    elif change == 3 and isinstance(value, (int, float)):
        holder[key] = rng.choice([value + 1, value - 1, -value, 2 * value, value // 2, str(value)])
    else:
        holder[key] = copy.deepcopy(rng.choice(_VALUES))


def _place(holder, rng):
    """Return where a value is, found by going down: a long list is not met more often."""
    while True:
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        inside = holder[key]
        stop = len(holder) > 1 and rng.random() < 0.1
        if stop or not inside or not isinstance(inside, (dict, list)):
            return holder, key
        holder = inside


def npy(content, rng):
    """Change an array, or its header with the padding and length that belong to it."""
    if rng.random() < 0.5:
        return _other_array(content, rng)
    end = 10 + int.from_bytes(content[8:10], "little")
    head, header, body = content[:8], content[10:end].decode("latin1").rstrip(), content[end:]
    change = rng.randrange(6)
    if change == 0:
        header = _replaced(r"'descr': [^,]*", f"'descr': {rng.choice(_DTYPES)}", header)
    elif change == 1:
        header = _replaced(r"\(.*\)", rng.choice(_SHAPES), header)
    elif change == 2:
        wrong = rng.choice(["True", "False", "1", "None"])
        header = _replaced(r"'fortran_order': \w*", f"'fortran_order': {wrong}", header)
    elif change == 3:
        head = head[:6] + bytes([rng.randrange(5), rng.randrange(2)])
    elif change == 4:
        header = any_bytes(header.encode("latin1"), rng).decode("latin1")
    else:
        body = any_bytes(body, rng)
    padded = header.encode("latin1") + b" " * (-(len(header) + 11) % 64) + b"\n"
    return head + len(padded).to_bytes(8, "little")[:2] + padded + body


def _other_array(content, rng):
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            array = np.load(io.BytesIO(content))
            dtype = rng.choice(["<f4", ">f4", "<f8", "<f2", "|u1", "|b1", "<i8", "<U8"])
            others = [array.T, array[..., :1], array.reshape(-1), array[None], array.astype(dtype)]
            others += [array * 0, array - 1, array + math.nan, np.array(array, order="F")]
    except Exception:  # whatever NumPy raises: a change before made it no array of numbers
        return any_bytes(content, rng)
    file = io.BytesIO()
    np.save(file, rng.choice(others))
    return file.getvalue()


def _replaced(pattern, new, text):
    return re.sub(pattern, lambda _: new, text, count=1)


def npz(data, rng, member=lambda name, content, rng: npy(content, rng), often="tree.npy"):
    """Change members of an archive, their names or their compression; its checksums hold.

    Args:
        data: The archive.
        rng: Draws the changes.
        member: Changes the content of one, given (name, content, rng).
        often: The member to change as often as all others, if there is one.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old:
            members = [[i.filename, i.compress_type, old.read(i)] for i in old.infolist()]
    except Exception:  # whatever zipfile raises: a change before was to the archive itself
        return any_bytes(data, rng)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        chosen = [m for m in members if m[0] == often] if rng.random() < 0.5 else members
        if chosen or members:
            _change_member(members, rng.choice(chosen or members), member, rng)
    new = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(new, "w") as archive:
        warnings.simplefilter("ignore")  # that a name appears twice
        for name, method, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return any_bytes(new.getvalue(), rng) if rng.random() < 0.1 else new.getvalue()


def _change_member(members, chosen, member, rng):
    change = rng.randrange(20)
    if change == 0:
        chosen[0] = rng.choice(["x.npy", "../x.npy", "", rng.choice(members)[0]])
    elif change == 1:
        chosen[1] = rng.choice(_METHODS)
    elif change == 2:
        members.remove(chosen)
    elif change == 3:
        members.insert(rng.randrange(len(members)), [*chosen])
    else:
        chosen[2] = member(chosen[0], chosen[2], rng)


def checkpoint(data, rng, part=None):
    """Change a checkpoint: mostly its tree, and half of the time this part of it."""

    def member(name, content, rng):
        if name != "tree.npy" or rng.random() < 0.1:
            return npy(content, rng)
        tree, file = json_text(content[content.find(b"\n") + 1 :], rng, part), io.BytesIO()
        np.save(file, np.frombuffer(tree, np.uint8))
        return file.getvalue()

    return npz(data, rng, member)


def safetensors(data, rng):
    """Change the header, with the length that belongs to it, or anything."""
    end = 8 + int.from_bytes(data[:8], "little")
    if end > len(data) or rng.random() < 0.2:
        return any_bytes(data, rng)
    header, body = json_text(data[8:end], rng), data[end:]
    if rng.random() < 0.1:
        body = any_bytes(body, rng)
    return len(header).to_bytes(8, "little") + header + body
