"""What may import what, read from the source; and what `import tinygrad_mnist` brings in."""

import ast
import importlib
import sys
from pathlib import Path

import pytest
from helpers import run_python

import tinygrad_mnist

ROOT = Path(tinygrad_mnist.__file__).parent
EXAMPLES = Path(__file__).parents[1] / "examples"

# A part is a file or a folder at the top of the package. It may import what stands on a line above
# its own, and within its own folder.
FLOORS = """
    _checks _display _generators _interrupts
    _extras _outline _threads
    _blas init metrics data
    parameter losses
    module optim settings
    nn
    _summary _tables testing
    compiled
    training
    interop plots
    page
"""
# third parties, where a part may use more than NumPy and the standard library
THIRD_PARTIES = {
    "_display": {"IPython"},
    "_threads": {"scipy", "threadpoolctl"},
    "_blas": {"scipy"},
    "data": {"scipy"},
    "nn": {"scipy"},
    "training": {"tqdm"},
    "testing": {"hypothesis", "jax", "keras", "torch"},
    "compiled": {"llvmlite", "numba", "tqdm"},
    "interop": {"jax", "keras", "onnx", "safetensors", "scipy", "sklearn"},
    "plots": {"PIL", "matplotlib"},
}
LINES = [line.split() for line in FLOORS.split("\n") if line]
BELOW = {
    part: {p for line in LINES[:i] for p in line} for i, line in enumerate(LINES) for part in line
}


def part_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = sorted(path for path in ROOT.rglob("*.py") if part_of(path) != "__init__")
every_file = pytest.mark.parametrize(
    "path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix()
)


def imported(path):
    """Yield the module, and the name imported from it or None, for every import of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports by a relative path"
            yield from ((node.module, alias.name) for alias in node.names)


def parts_imported(path):
    """Yield the parts of the package that a file imports; "the root" is none of them."""
    for module, name in imported(path):
        top, *rest = module.split(".")
        if top == "tinygrad_mnist":
            yield rest[0] if rest else (name if name in BELOW else "the root")


@every_file
def test_imports_point_one_way(path):
    part = part_of(path)
    assert set(parts_imported(path)) <= BELOW[part] | {part}


def test_every_part_has_a_floor():
    assert {part_of(path) for path in FILES} == BELOW.keys()


def test_data_needs_nothing_else_of_the_package():
    for path in FILES:
        if part_of(path) == "data":
            assert set(parts_imported(path)) <= {"_checks", "_extras", "data"}


@every_file
def test_third_parties_are_imported_only_where_they_belong(path):
    known = sys.stdlib_module_names | {"numpy", "tinygrad_mnist"}
    others = {module.split(".")[0] for module, _ in imported(path)} - known
    assert others <= THIRD_PARTIES.get(part_of(path), set())


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.py")), ids=lambda path: path.stem)
def test_examples_import_public_names_only(path):
    for module, name in imported(path):
        if module.startswith("tinygrad_mnist"):
            assert not any(part.startswith("_") for part in [*module.split("."), name or ""])


def test_importing_the_package_is_light_and_silent():
    heavy = ["hypothesis", "IPython", "jax", "keras", "matplotlib", "numba", "onnx", "safetensors"]
    heavy += ["scipy.ndimage", "scipy.special", "sklearn", "torch", "tqdm.notebook"]
    code = "import tinygrad_mnist.training, tinygrad_mnist.optim.schedules, tinygrad_mnist, sys"
    code += f"; print([name for name in {heavy} if name in sys.modules])"
    done = run_python("-W", "error", "-c", code)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_public_names_are_those_of_the_design():
    layers = {"Linear", "ReLU", "Dropout", "Sequential", "LeakyReLU", "Tanh", "Sigmoid", "SiLU"}
    layers |= {"GELU", "Softmax", "BatchNorm", "LayerNorm", "Residual", "Parallel"}
    layers |= {"Conv2d", "MaxPool2d", "AvgPool2d", "Flatten", "Unflatten"}
    others = {
        "Buffer",
        "DataLoader",
        "MSELoss",
        "Module",
        "Parameter",
        "SGD",
        "num_threads",
        "summary",
    }
    others |= {"CrossEntropyLoss", "BCEWithLogitsLoss", "HuberLoss", "Adam", "AdamW"}
    assert set(tinygrad_mnist.__all__) == layers | others


@pytest.mark.parametrize("part", ["", ".nn", ".optim", ".training", ".data", ".testing"])
def test_every_public_name_is_there_and_documented(part):
    module = importlib.import_module(f"tinygrad_mnist{part}")
    for name in module.__all__:
        assert getattr(module, name).__doc__
