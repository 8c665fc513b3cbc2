"""README and pages: their Python runs, their commands are the gate's, their links work."""

import doctest
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tinygrad_mnist import num_threads

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "pages").glob("*.md"))]
ENVIRONMENT = "{ test -d .venv || python3 -m venv .venv; } && .venv/bin/pip install --quiet -e"
TESTS = ".venv/bin/python -m pytest -n auto"
CORE = ["parameter", "module", "nn/linear", "nn/activations", "nn/dropout", "nn/sequential"]
CORE += ["losses", "optim/optimizer", "optim/sgd", "data/loader"]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.S | re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_the_python_in_a_page_does_what_it_says(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    needs = [("interop.keras", "keras"), ("testing.torch", "torch")]
    needs += [("interop.onnx", "onnxruntime"), ("interop.safetensors", "safetensors")]
    needs += [("interop.sklearn", "sklearn")]
    for part, extra in needs:
        if f">>> from tinygrad_mnist.{part} " in page.read_text() and not find_spec(extra):
            pytest.skip(f"needs the extra `{extra}`")
    with num_threads(1):  # other tests run beside it, and threads that share a core wait
        failures, attempted = doctest.testfile(str(page), module_relative=False)
    assert attempted > 0
    assert failures == 0


def test_the_readmes_loop_is_that_of_the_example():
    first, *_ = blocks("python")
    assert first in (ROOT / "examples" / "mnist.py").read_text()


def test_the_core_has_about_as_many_lines_as_the_readme_says():
    # a family's base and its simplest member: the others can be read when they are needed
    ends = {"losses": "class HuberLoss", "nn/activations": "class LeakyReLU"}
    lines = 0
    for name in CORE:
        text, end = (ROOT / "tinygrad_mnist" / f"{name}.py").read_text(), ends.get(name)
        lines += text[: text.index(end) if end else None].count("\n")
    assert lines <= 1200
    assert f"whose core, about {round(lines, -2):,} lines," in README


def test_the_core_can_be_read_in_the_readmes_order():
    told = README[README.index("The core is") :].split("```")[0]
    assert re.findall(r"(\w+)\.py`", told) == [name.split("/")[-1] for name in CORE]
    read = ["init"]  # the names in it say enough, as do those of the parts taken on trust
    for name in CORE:
        text = (ROOT / "tinygrad_mnist" / f"{name}.py").read_text()
        needed = re.findall(r"^from tinygrad_mnist\.([a-z][\w.]*) import", text, re.M)
        assert set(needed) <= set(read), name
        read.append(name.replace("/", "."))


def test_the_readme_has_two_commands_of_one_line_each():
    assert blocks("bash") == [
        f"{ENVIRONMENT} . && .venv/bin/python examples/mnist.py\n",
        f"{ENVIRONMENT} '.[test]' && {TESTS}\n",
    ]


def test_the_windows_commands_do_the_same():
    for windows, unix in zip(blocks("powershell"), blocks("bash"), strict=True):
        (line,) = windows.splitlines()
        assert line.startswith("if (!(Test-Path .venv)) { python -m venv .venv }; ")
        done = line.split("; ", 1)[1].replace("; ", " && ")
        assert done.replace("\\", "/").replace("Scripts", "bin") == unix.strip().split("; } && ")[1]


def test_the_gate_runs_the_readmes_tests():
    gate = (ROOT / ".ci" / "run").read_text()
    assert re.search(rf"^(\w+=\S+ )*{re.escape(TESTS)}( .*)?$", gate, re.M)


def test_every_example_is_in_the_readme():
    examples = sorted((ROOT / "examples").rglob("*.py"))
    assert len(examples) > 10
    for example in examples:
        assert re.search(rf"\b{example.name}\b", README), example


def test_every_page_is_linked_from_the_readme():
    linked = re.findall(r"\]\(docs/pages/([\w-]+)\.md\)", README)
    assert set(linked) == {page.stem for page in PAGES[1:]}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_every_link_leads_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:examples|docs|tests|tinygrad_mnist)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path
