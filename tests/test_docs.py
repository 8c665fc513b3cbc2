"""The site: every page is reachable, every picture drawn, every error has a line of advice."""

import ast
import fnmatch
import importlib.util
import inspect
import json
import re
import textwrap
from pathlib import Path

import pytest

from tinygrad_mnist._checks.refusal import REMEDIES
from tinygrad_mnist.testing.contracts.function import FUNCTION_RULES
from tinygrad_mnist.testing.contracts.loss import LATER_LOSS_RULES, LOSS_CHECKLIST_RULES, LOSS_RULES
from tinygrad_mnist.testing.contracts.module import MODULE_RULES
from tinygrad_mnist.testing.contracts.module_later import CHECKLIST_RULES, LATER_RULES
from tinygrad_mnist.testing.contracts.optimizer import COMPARED_RULES, OPTIMIZER_RULES

ROOT = Path(__file__).parents[1]
DOCS, PACKAGE = ROOT / "docs", ROOT / "tinygrad_mnist"
PAGES = sorted((DOCS / "pages").glob("*.md"))
SOURCES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
API = dict(
    re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", (DOCS / "pages" / "api.md").read_text(), re.S | re.M)
)
REFUSAL = SOURCES[PACKAGE / "_checks" / "refusal.py"]


def test_every_page_is_reachable():
    blocks = re.findall(
        r"^```\{toctree\}\n(.*?)^```$", (DOCS / "pages" / "index.md").read_text(), re.S | re.M
    )
    lines = [line for block in blocks for line in block.splitlines()]
    entries = [line for line in lines if line and not line.startswith(":")]
    for page in PAGES:
        assert page.stem == "index" or any(fnmatch.fnmatch(page.stem, e) for e in entries), page
    for page in (DOCS / "CHANGELOG.md", DOCS / "CONTRIBUTING.md"):
        assert f"/{page.stem}" in entries


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_every_block_of_python_is_run_or_is_from_the_package(page):
    blocks = re.findall(r"^( *)```python\n(.*?)^\1```$", page.read_text(), re.S | re.M)
    assert blocks
    source = "\n".join(path.read_text() for path in SOURCES)
    for _, block in blocks:
        shifted = [textwrap.indent(block, depth * "    ") for depth in range(4)]
        assert block.lstrip().startswith(">>>") or any(map(source.__contains__, shifted)), block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_formulas_are_shown_in_a_repository_too(page):
    """There, Markdown takes the backslash from a sign: of two it leaves one, of a space a comma."""
    text = re.sub(r"^ *```.*?```$|`[^`\n]*`", "", page.read_text(), flags=re.M | re.S)
    formulas = re.findall(r"\$\$.*?\$\$|\$[^$]+\$", text, re.S)
    assert bool(formulas) == ("$" in text)
    assert not [formula for formula in formulas if re.search(r"\\[^\w\s]", formula)]


def test_every_public_module_is_in_the_api():
    text = (DOCS / "reference.rst").read_text()
    shown = re.findall(r"^\.\. automodule:: tinygrad_mnist\.([\w.]+)$", text, re.M)
    assert API.keys() == {"tinygrad_mnist"} | set(shown)
    parts = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith(("_", "py."))}
    parts -= {"module", "parameter"}  # whose names are the package's
    parts -= {"page"}  # which is a program
    assert {name.partition(".")[0] for name in shown} == parts
    # of other folders, the folder itself has the public names
    alone = {"data.mnist", "data.transforms", "optim.schedules", "training.checkpoint"}
    alone |= {"interop.keras", "interop.onnx", "interop.safetensors", "interop.sklearn"}
    alone |= {f"testing.{name}" for name in ("strategies", "torch", "jax", "keras")}
    assert set(shown) == alone | parts - {"interop"}


@pytest.mark.parametrize("name", API)
def test_the_api_lists_every_name_with_the_first_line_of_its_docstring(name):
    path = "tinygrad_mnist" if name == "tinygrad_mnist" else f"tinygrad_mnist.{name}"
    module = pytest.importorskip(path, exc_type=ImportError)
    told = dict(re.findall(r"^- `(\w+)`: (.*)$", API[name], re.M))
    assert name == "tinygrad_mnist" or inspect.getdoc(module).splitlines()[0] in API[name]
    names = module.__all__ if hasattr(module, "__all__") else defined_in(module)
    found = {n: getattr(module, n) for n in names}
    described = {n: v for n, v in found.items() if inspect.isclass(v) or inspect.isfunction(v)}
    wanted = {n: inspect.getdoc(v).splitlines()[0] for n, v in described.items()}
    assert {n: told.get(n) for n in wanted} == wanted
    assert set(names) <= told.keys()
    assert all(hasattr(module, public) for public in told)


def defined_in(module):
    own = (v for v in vars(module).values() if getattr(v, "__module__", None) == module.__name__)
    return [v.__name__ for v in own if callable(v) and not v.__name__.startswith("_")]


@pytest.fixture
def figures():
    spec = importlib.util.spec_from_file_location("figures", DOCS / "figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_picture_is_what_the_pages_code_leaves_under_its_name(figures, tmp_path):
    image = pytest.importorskip("matplotlib.image", reason="needs the extra `plot`")
    figures.DOCS = tmp_path / "docs"
    page = figures.DOCS / "pages" / "lines.md"
    page.parent.mkdir(parents=True)
    page.write_text(
        "```python\n>>> from matplotlib.figure import Figure\n>>> line = Figure(figsize=(2, 1))\n"
        ">>> dot = Figure(figsize=(1, 1))\n\n```\n"
        "![a line](../pictures/lines/line.png)\n![a dot](../pictures/lines/dot.png)\n"
    )
    figures.draw(page)
    folder = figures.DOCS / "pictures" / "lines"
    assert image.imread(folder / "line.png").shape[:2] == (120, 240)
    assert image.imread(folder / "dot.png").shape[:2] == (120, 120)
    drawn, text = figures.digest(page, "dot"), page.read_text()
    assert json.loads((folder.parent / "drawn.json").read_text())["lines/dot"] == drawn
    page.write_text(text + "```python\n>>> more = 1\n\n```\n")  # later code does not matter
    assert figures.digest(page, "dot") == drawn
    page.write_text(text.replace("(2, 1)", "(3, 1)"))
    assert figures.digest(page, "dot") != drawn
    page.write_text(text.replace("line.png", "other.png"))
    with pytest.raises(KeyError, match="other"):
        figures.draw(page)


def test_the_code_that_draws_is_known_but_for_its_words(figures, tmp_path):
    file = tmp_path / "code.py"
    file.write_text('"""Two\n\nlines."""\n# one\ndef f(x):\n    """Say f."""\n    return x  # x\n')
    assert figures.code_of(file) == "def f(x):\n    return x"


def test_every_picture_was_drawn_from_its_page_as_it_is_now(figures):
    """If not, run docs/figures.py with the name of the page, and look at what it draws."""
    now = {
        f"{page.stem}/{name}": figures.digest(page, name)
        for page in PAGES
        for name in figures.pictures_of(page)
    }
    assert json.loads((DOCS / "pictures" / "drawn.json").read_text()) == now


def test_every_picture_in_the_folder_of_a_page_is_drawn_and_shown_by_it():
    drawn = sorted((DOCS / "pictures").glob("*/*.png"))
    assert len(drawn) > 5
    for picture in drawn:
        text = (DOCS / "pages" / f"{picture.parent.name}.md").read_text()
        assert re.search(rf"^>>> {picture.stem} = ", text, re.M)
        assert f"](../{picture.relative_to(DOCS)})" in text


def test_the_page_on_design_has_the_floors_that_are_tested():
    tested = re.search(
        r'^FLOORS = """\n(.*?)^"""$', (ROOT / "tests" / "test_imports.py").read_text(), re.S | re.M
    )
    assert textwrap.dedent(tested[1]) in (DOCS / "pages" / "design.md").read_text()


def test_the_commands_for_contributors_are_those_of_the_gate():
    commands = re.findall(r"^    (\S.*)$", (DOCS / "CONTRIBUTING.md").read_text(), re.M)
    assert len(commands) == 5
    gate = (ROOT / ".ci" / "run").read_text() + (ROOT / "README.md").read_text()
    for command in " && ".join(commands).split(" && "):
        assert command.replace("pip install -e", "pip install --quiet -e") in gate


def rows(page):
    """Return the first cell of every row of its tables, and the rest."""
    return dict(re.findall(r"^\| `([^|]*)` \| ([^|]*\S) \|$", page.read_text(), re.M))


def template(node):
    """Return a literal string with … for what is filled in, None for anything else."""
    if not isinstance(node, ast.Constant | ast.JoinedStr):
        return None
    parts = (
        v.value if isinstance(v, ast.Constant) else "…" for v in getattr(node, "values", [node])
    )
    return re.sub("[`…]+", "…", "".join(parts))  # in a table, no backquote can stand in code


def positions(tree):
    """Return where each function that takes a contract takes it, those of `check` among them."""
    yield "refused", 1  # a name for one of them, as the type of a value decides
    for node in (*ast.walk(REFUSAL), *ast.walk(tree)):
        if isinstance(node, ast.FunctionDef):
            names = [arg.arg for arg in node.args.args if arg.arg != "self"]
            if "contract" in names:
                yield node.name, names.index("contract")


def contracts(tree):
    """Yield what errors say they expected: each `contract` assigned, or passed to a function."""
    position = dict(positions(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "contract":
            yield node.value
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", None))
            if name in position and ast.unparse(node.args[position[name]]) != "contract":
                yield node.args[position[name]]


# errors of the checking kit name rules, which have a table to themselves
RULES = {path for path in SOURCES if path.parent.name == "contracts"}
ADVICE = rows(DOCS / "pages" / "errors.md")


def test_every_error_has_a_line_of_advice_and_every_line_an_error():
    found = {
        template(node)
        for path, tree in SOURCES.items()
        if path not in RULES
        for node in contracts(tree)
    }
    rules = {*MODULE_RULES, *LATER_RULES, *CHECKLIST_RULES, *FUNCTION_RULES}
    rules |= {*LOSS_RULES, *LATER_LOSS_RULES, *LOSS_CHECKLIST_RULES}
    rules |= {*OPTIMIZER_RULES, *COMPARED_RULES, "forms", "unused-parameter"}
    assert "x of shape (..., …)" in found
    assert "keeps-dy" in rules
    assert set(ADVICE) == found | rules | REMEDIES.keys()


def test_every_note_is_in_the_advice_for_its_contract():
    for contract, remedy in REMEDIES.items():
        assert remedy in ADVICE[contract]


def test_errors_are_made_by_expected():
    """Or by code whose callers turn whatever it raises into one that is."""
    plain = set()
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                message = node.exc.args[0]
                if ast.unparse(node.exc.func).endswith("Error") and template(message):
                    plain.add(path.relative_to(PACKAGE).as_posix())
    assert plain == {
        "_generators.py",
        "compiled/products.py",  # compiled code has no other way
        "data/_formats.py",
        "interop/_torch.py",
        "interop/keras/layers.py",
        "interop/safetensors.py",
        "optim/groups.py",
        "training/_archive.py",
        "training/_resume.py",
        "training/_structure.py",
        "training/checkpoint.py",
        "training/history.py",
    }


def test_every_exception_of_the_package_is_explained():
    text = (DOCS / "pages" / "errors.md").read_text()
    for tree in SOURCES.values():
        for node in ast.walk(tree):
            bases = map(ast.unparse, getattr(node, "bases", ()))
            if any(base.endswith(("Error", "Exception")) for base in bases):
                assert f"`{node.name}`" in text
