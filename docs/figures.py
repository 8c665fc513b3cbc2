"""Draw the pictures of the pages and of the README again: .venv/bin/python docs/figures.py.

A page that shows `../pictures/tutorial/curves.png` is docs/pages/tutorial.md, and its code assigns
a picture to `curves`. `docs/figures.py tutorial` draws those of one page. docs/pictures/drawn.json
has a digest of what each was drawn from, so that a test sees one that is out of date.

Without a page, the README's pictures are drawn, too, which takes some minutes: docs/notebook.png
shows the networks of docs/pages/notebook.md after 120 epochs, docs/mistakes.png is what
examples/train.py writes. Needs the extras `compiled` and `plot`.
"""

import ast
import contextlib
import doctest
import functools
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def draw(page):
    """Run the code of a page that shows pictures, and save them."""
    names = pictures_of(page)
    if not names:
        return
    found = run(page)
    folder = DOCS / "pictures" / page.stem
    folder.mkdir(parents=True, exist_ok=True)
    record = folder.parent / "drawn.json"
    drawn = json.loads(record.read_text()) if record.exists() else {}
    drawn = {key: value for key, value in drawn.items() if key.partition("/")[0] != page.stem}
    for name in names:
        found[name].get_figure().savefig(folder / f"{name}.png", dpi=120)
        drawn[f"{page.stem}/{name}"] = digest(page, name)
    record.write_text(json.dumps(drawn, indent=1, sort_keys=True) + "\n")


def pictures_of(page):
    """Return the names of the pictures that a page shows from its own folder."""
    return re.findall(rf"\(\.\./pictures/{page.stem}/(\w+)\.png\)", page.read_text())


def run(page):
    """Return the names that the code of a page defines, run in the repository's root."""
    found = {}
    with contextlib.chdir(ROOT), contextlib.redirect_stdout(None):
        exec(compile("".join(statements(page)), page, "exec"), found)
    return found


def statements(page):
    """Return the statements of a page, in order."""
    return [part.source for part in doctest.DocTestParser().get_examples(page.read_text())]


def digest(page, name):
    """Return a digest of a picture, the page's code up to it, and the code that draws."""
    before = statements(page)
    last = next(i for i, line in enumerate(before) if line.startswith(f"{name} = "))
    parts = ["".join(before[: last + 1])]
    parts += [code_of(path) for path in sorted((ROOT / "tinygrad_mnist" / "plots").glob("*.py"))]
    picture = (DOCS / "pictures" / page.stem / f"{name}.png").read_bytes()
    return hashlib.sha256("\n".join(parts).encode() + picture).hexdigest()[:16]


@functools.cache
def code_of(path):
    """Return the lines of a file that do something: no comments, docstrings or empty lines."""
    lines, kinds = path.read_text().split("\n"), (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            start, end = node.body[0].lineno - 1, node.body[0].end_lineno
            lines[start:end] = [""] * (end - start)
    code = (line.partition("  #")[0] for line in lines)
    return "\n".join(line for line in code if line.strip() and not line.lstrip().startswith("#"))


def draw_mistakes():
    """Draw the mistakes of the network that examples/train.py trains by default."""
    with tempfile.TemporaryDirectory() as folder:
        train = [sys.executable, ROOT / "examples" / "train.py", "--out", folder]
        subprocess.run(train, check=True, stdout=subprocess.DEVNULL)
        shutil.copy(Path(folder, "mistakes.png"), DOCS)


def draw_notebook():
    """Draw the notebook's second network with its gradients and with right ones."""
    from tinygrad_mnist import SGD, DataLoader
    from tinygrad_mnist.training import fit

    page = run(DOCS / "pages" / "notebook.md")
    page["epochs"] = epochs = range(1, 121)
    right = [after for _, after in page["sample_by_sample"](100, 0.5)]
    model = page["network"](100, 0.5, page["NotebookReLU"], page["NotebookDropout"])
    train = DataLoader(page["x"], page["t"], batch_size=None)
    test = DataLoader(page["x_test"], page["t_test"], batch_size=1000)
    optimizer = SGD(model.parameters(), lr=0.005 / 2)
    history = fit(model, page["loss"], optimizer, train, epochs=len(epochs), validation=test)
    plotted(epochs, right, history.column("val_accuracy")).savefig(DOCS / "notebook.png", dpi=150)


def plotted(epochs, right, wrong):
    """Return the picture of both, readable at a third of its size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    ax = figure.add_subplot(xlim=(0, 121), ylim=(0.78, 0.955), xticks=(1, 40, 80, 120))
    ax.plot(epochs, right, "C0", linewidth=3)
    ax.plot(epochs, wrong, "C3", linewidth=3)
    large = {"fontsize": 18, "ha": "right"}
    ax.text(120, 0.91, f"with right gradients: {right[-1]:.2f}", color="C0", **large)
    ax.text(120, 0.865, f"with the notebook's gradients: {wrong[-1]:.2f}", color="C3", **large)
    ax.set_title("Test accuracy of the same network on MNIST", fontsize=18, loc="left")
    ax.set_xlabel("epoch", fontsize=16)
    ax.tick_params(labelsize=16)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    asked = sys.argv[1:]
    for page in sorted((DOCS / "pages").glob("*.md")):
        if not asked or page.stem in asked:
            draw(page)
    if not asked:
        draw_mistakes()
        draw_notebook()
