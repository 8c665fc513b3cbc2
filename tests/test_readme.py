"""README and docs: their Python is run, their commands are what they say."""

import doctest
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "pages").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_the_python_in_a_page_does_what_it_says(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    if ">>> from tinygrad_mnist.keras " in page.read_text() and not find_spec("keras"):
        pytest.skip("needs the extra `keras`")
    failures, attempted = doctest.testfile(str(page), module_relative=False)
    assert attempted > 0
    assert failures == 0


def test_the_readme_has_two_commands_of_one_line_each():
    blocks = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(), re.S | re.M)
    assert [block.count("\n") for block in blocks] == [1, 1]
    assert "examples/mnist_minibatch.py --epochs 11" in blocks[0]
    assert "pytest" in blocks[1]


def test_every_example_is_in_the_readme():
    text = (ROOT / "README.md").read_text()
    for example in (ROOT / "examples").glob("*.py"):
        assert example.name in text


def test_every_page_is_free_of_dead_relative_paths():
    for page in PAGES:
        for path in re.findall(
            r"`((?:examples|docs|tests|tinygrad_mnist)/[\w./]+)`", page.read_text()
        ):
            assert (ROOT / path).exists(), path
