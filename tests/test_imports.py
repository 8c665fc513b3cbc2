"""What may import what, read from the source; and what `import tinygrad_mnist` brings in."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tinygrad_mnist

ROOT = Path(tinygrad_mnist.__file__).parent
EXAMPLES = Path(__file__).parents[1] / "examples"

# each part of the package and the parts it may import; nothing may import the root
ALLOWED = {
    "_checks": set(),
    "_blas": {"_checks"},
    "_keras": {"_checks"},
    "init": {"_checks"},
    "module": {"_checks", "_blas"},
    "losses": {"_checks", "_blas"},
    "metrics": {"_checks"},
    "plots": {"_checks", "history"},
    "optim": {"_checks", "_blas", "module"},
    "nn.linear": {"_checks", "_blas", "module", "init"},
    "nn.relu": {"_checks", "module"},
    "nn.dropout": {"_checks", "_blas", "module"},
    "nn.sequential": {"_checks", "module"},
    "nn": {"nn.linear", "nn.relu", "nn.dropout", "nn.sequential"},
    "data.transforms": {"_checks"},
    "data.loader": {"_checks"},
    "data._formats": {"_checks"},
    "data.mnist": {"_checks", "_keras", "data._formats", "data.transforms"},
    "data": {"data.loader"},
    "_chain": {"_checks", "module", "nn"},
    "_kernel": set(),
    "compiled": {"_chain", "_checks", "_kernel", "losses", "module", "nn", "optim"},
    "_generators": set(),
    "history": {"_checks"},
    "checkpoint": {"_checks", "_generators", "data", "history", "module", "optim"},
    "callbacks": {"_checks", "checkpoint", "history", "module", "optim"},
    "schedules": {"_checks", "callbacks"},
    "training": {
        "_checks",
        "_generators",
        "callbacks",
        "checkpoint",
        "data",
        "history",
        "losses",
        "metrics",
        "module",
        "optim",
    },
    "testing._streams": {"_generators"},
    "keras": {"_chain", "_checks", "_keras", "losses", "module", "nn", "optim"},
    "testing.report": set(),
    "testing.subject": {"_checks", "losses", "module", "testing._streams", "testing.report"},
    "testing.differences": {"_checks", "testing.report", "testing.subject"},
    "testing.contracts": {
        "_checks",
        "losses",
        "module",
        "testing._streams",
        "testing.report",
        "testing.subject",
    },
    "testing.hints": {"module", "nn", "testing.report"},
    "testing.gradients": {
        "_checks",
        "losses",
        "module",
        "nn",
        "testing.contracts",
        "testing.differences",
        "testing.hints",
        "testing.report",
        "testing.subject",
    },
    "testing.strategies": {
        "_checks",
        "module",
        "nn",
        "testing.contracts",
        "testing.gradients",
        "testing.report",
    },
    "testing": {"testing.gradients", "testing.report"},
    "": {"_blas", "data", "losses", "module", "nn", "optim"},
}
# third parties, where a part may use more than NumPy and the standard library
THIRD_PARTIES = {
    "_blas": {"scipy", "threadpoolctl"},
    "checkpoint": {"safetensors"},
    "data.mnist": {"keras"},
    "training": {"tqdm"},
    "keras": {"jax"},
    "testing.strategies": {"hypothesis"},
    "_kernel": {"numba"},
    "plots": {"matplotlib"},
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module, alias.name) for alias in node.names)


def part_of(path):
    names = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def parts_imported(path):
    """Yield (inside the package?, part or third party) for every import of a file."""
    for module, name in imported(path):
        top, _, rest = module.partition(".")
        if top != "tinygrad_mnist":
            if top not in sys.stdlib_module_names:
                yield False, top
        elif rest:
            yield True, rest
        else:
            yield True, name if (ROOT / f"{name}.py").exists() else "(the root)"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=part_of)
def test_imports_point_one_way(path):
    part = part_of(path)
    for inside, name in parts_imported(path):
        if inside:
            assert name in ALLOWED[part]
        else:
            assert name in {"numpy"} | THIRD_PARTIES.get(part, set())


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_examples_import_public_names_only(path):
    for module, name in imported(path):
        if module.startswith("tinygrad_mnist"):
            assert not any(part.startswith("_") for part in module.split("."))
            assert name is None or not name.startswith("_")


def test_importing_the_package_is_light_and_silent():
    heavy = ["keras", "jax", "matplotlib", "hypothesis", "numba", "tqdm.notebook", "IPython"]
    code = f"import tinygrad_mnist, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    assert done.stderr == ""


def test_the_public_names_are_those_of_the_design():
    layers = {"Linear", "ReLU", "Dropout", "Sequential"}
    others = {"Module", "Parameter", "MSELoss", "SGD", "DataLoader", "num_threads"}
    assert set(tinygrad_mnist.__all__) == layers | others
    for name in tinygrad_mnist.__all__:
        assert getattr(tinygrad_mnist, name).__doc__
