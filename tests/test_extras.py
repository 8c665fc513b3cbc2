"""Without an optional package, whoever needs it says in one sentence what to install."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("tinygrad_mnist.compiled", "numba", "compiled"),
        ("tinygrad_mnist.plots", "matplotlib", "plot"),
        ("tinygrad_mnist.interop.safetensors", "safetensors", "safetensors"),
        ("tinygrad_mnist.testing.strategies", "hypothesis", "test"),
        ("tinygrad_mnist.testing.torch", "torch", "torch"),
        ("tinygrad_mnist.testing.jax", "jax", "keras"),
    ],
)
def test_a_missing_extra_is_one_sentence(module, package, extra):
    code = f"import sys; sys.modules[{package!r}] = None; import {module}"
    run = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    contract = f"the extra `{extra}` (pip install 'tinygrad_mnist[{extra}]')"
    last = run.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: {module}: expected {contract}, got ")
    assert package in last.split(", got ")[1]


def test_the_rest_of_the_package_imports_without_any_extra():
    extras = ("numba", "matplotlib", "safetensors", "hypothesis", "keras", "jax", "torch")
    code = f"import sys; sys.modules.update(dict.fromkeys({extras})); "
    code += "import tinygrad_mnist.training, tinygrad_mnist.testing, tinygrad_mnist.interop"
    subprocess.run([sys.executable, "-c", code], check=True)
