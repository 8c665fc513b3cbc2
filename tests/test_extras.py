"""Without an optional package, whoever needs it says in one sentence what to install."""

import json

import pytest
from helpers import run_python

NEEDS = {
    "tinygrad_mnist.compiled": ("numba", "compiled"),
    "tinygrad_mnist.plots": ("matplotlib", "plot"),
    "tinygrad_mnist.interop.onnx": ("onnx", "onnx"),
    "tinygrad_mnist.interop.safetensors": ("safetensors", "safetensors"),
    "tinygrad_mnist.interop.sklearn": ("sklearn", "sklearn"),
    "tinygrad_mnist.testing.strategies": ("hypothesis", "test"),
    "tinygrad_mnist.testing.torch": ("torch", "torch"),
    "tinygrad_mnist.testing.jax": ("jax", "keras"),
}
EXTRAS = [*(package for package, _ in NEEDS.values()), "keras"]


@pytest.fixture(scope="module")
def told():
    """Return what each module says where no extra is installed, and the rest of the package is."""
    code = f"""
import importlib, json, sys
sys.modules.update(dict.fromkeys({EXTRAS}))
import tinygrad_mnist.training, tinygrad_mnist.testing, tinygrad_mnist.interop
told = {{}}
for module in {list(NEEDS)}:
    try:
        importlib.import_module(module)
    except ImportError as error:
        told[module] = f"{{type(error).__name__}}: {{error}}"
print(json.dumps(told))
"""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("module", NEEDS)
def test_a_missing_extra_is_one_sentence_and_the_rest_of_the_package_imports(told, module):
    package, extra = NEEDS[module]
    contract = f"the extra `{extra}` (pip install 'tinygrad_mnist[{extra}]')"
    assert told[module].startswith(f"ImportError: {module}: expected {contract}, got ")
    assert package in told[module].split(", got ")[1]
    assert "\n" not in told[module]
