"""Safetensors: the arrays of a model alone, for other frameworks (needs the extra `safetensors`).

Names, shapes and dtypes are those of `state_dict`, or with `layout="torch"` those that
`load_state_dict` of the same model in PyTorch takes. That model has the same layers at the same
places: images have their channels first, and a Residual is a Module with a `body` and a `shortcut`.
"""

import json
import os
from pathlib import Path
from typing import Literal

import numpy as np

from tinygrad_mnist import _checks as check
from tinygrad_mnist._extras import needing
from tinygrad_mnist.interop._torch import Order, torch_orders, undone
from tinygrad_mnist.module import Module
from tinygrad_mnist.training._files import write
from tinygrad_mnist.training.checkpoint import CheckpointError, set_arrays

with needing("tinygrad_mnist.interop.safetensors", "safetensors"):
    from safetensors.numpy import load, save

Layout = Literal["own", "torch"]


def export_safetensors(
    path: str | os.PathLike[str], model: Module, *, layout: Layout = "own"
) -> None:
    """Write the Parameters and Buffers, by dotted name.

    Args:
        path: The file, by convention .safetensors. It is written whole or not at all.
        model: Any Module; for PyTorch, of the package's own layers.
        layout: "own", or "torch" for arrays as PyTorch has them.

    Raises:
        TypeError: For PyTorch, a layer that is not the package's own, or a shared Parameter.
        ValueError: For PyTorch, a model in which the order of flat images is unknown; or path is a
            folder or a device.
        OSError: The file cannot be written; an old one is still there.
    """
    orders = _orders("export_safetensors", model, layout)
    arrays = model.state_dict()
    for name, order in orders.items():
        arrays[name] = np.ascontiguousarray(order(arrays[name]))
    content = save(arrays, metadata={"layout": layout})
    write("export_safetensors", path, lambda file: file.write(content))


def import_safetensors(
    path: str | os.PathLike[str], model: Module, *, layout: Layout = "own"
) -> None:
    """Set the Parameters and Buffers from a file with the same names, shapes and dtypes.

    Args:
        path: The file.
        model: Of the same structure.
        layout: "own", or "torch" for arrays as PyTorch has them. Its `num_batches_tracked` of a
            BatchNorm are left out.

    Raises:
        CheckpointError: The file is damaged, or does not fit; nothing has changed then.
        FileNotFoundError: There is no such file.
        TypeError, ValueError: For PyTorch, as for `export_safetensors`.
    """
    orders = _orders("import_safetensors", model, layout)
    content = Path(path).read_bytes()
    contract = f"{path} to be a safetensors file that fits"
    with check.refusing("import_safetensors", contract, CheckpointError):
        arrays, written = load(content), _layout_in(content)
        if written not in (None, layout):  # square arrays would fit in both
            raise ValueError(f'one written with layout="{written}"')
        for name, own in model.state_dict().items():
            if name in orders and name in arrays:
                arrays[name] = undone(orders[name], name, arrays[name], own.shape)
        for name in orders:  # a count of batches that nothing of what is computed depends on
            if name.endswith("running_var"):
                arrays.pop(name.replace("running_var", "num_batches_tracked"), None)
        set_arrays(model, arrays)


def _layout_in(content: bytes) -> str | None:
    """Return the layout that `export_safetensors` wrote into a file's header; others do not."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    layout: str | None = header.get("__metadata__", {}).get("layout")
    return layout


def _orders(owner: str, model: Module, layout: Layout) -> dict[str, Order]:
    if not isinstance(model, Module):
        raise check.type_error(owner, "a Module", model)
    check.choice(owner, "layout", layout, "own", "torch")
    return torch_orders(owner, model) if layout == "torch" else {}
