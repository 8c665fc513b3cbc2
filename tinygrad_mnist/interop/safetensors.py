"""Safetensors: the arrays of a model alone, for other frameworks (needs the extra `safetensors`).

Names, shapes and dtypes are those of `state_dict`. A Linear's weight is (in_features, out_features)
here, the transpose of PyTorch's.
"""

import os
from pathlib import Path

from tinygrad_mnist import _checks as check
from tinygrad_mnist._extras import needing
from tinygrad_mnist.module import Module
from tinygrad_mnist.training._files import write
from tinygrad_mnist.training.checkpoint import CheckpointError, set_arrays

with needing("tinygrad_mnist.interop.safetensors", "safetensors"):
    from safetensors.numpy import load, save


def export_safetensors(path: str | os.PathLike[str], model: Module) -> None:
    """Write the Parameters and Buffers, by dotted name.

    Raises:
        ValueError: path is a folder or a device.
        OSError: The file cannot be written; an old one is still there.
    """
    write("export_safetensors", path, lambda file: file.write(save(model.state_dict())))


def import_safetensors(path: str | os.PathLike[str], model: Module) -> None:
    """Set the Parameters and Buffers from a file with the same names, shapes and dtypes.

    Raises:
        CheckpointError: The file is damaged, or does not fit; nothing has changed then.
        FileNotFoundError: There is no such file.
    """
    content = Path(path).read_bytes()
    contract = f"{path} to be a safetensors file that fits"
    with check.refusing("import_safetensors", contract, CheckpointError):
        set_arrays(model, load(content))
