"""Draw the pictures of the pages and of the README again: .venv/bin/python docs/figures.py.

A page that shows `../pictures/tutorial/curves.png` is docs/pages/tutorial.md, and its code assigns
a matplotlib Figure to `curves`. The README's docs/notebook.png shows the networks of
docs/pages/notebook.md after 120 epochs, and takes some minutes. Needs the extras `compiled` and
`plot`.
"""

import contextlib
import doctest
import re
from pathlib import Path

DOCS = Path(__file__).parent


def draw(page):
    """Run the code of a page that shows pictures, and save them."""
    names = re.findall(rf"\(\.\./pictures/{page.stem}/(\w+)\.png\)", page.read_text())
    if not names:
        return
    found = run(page)
    folder = DOCS / "pictures" / page.stem
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        found[name].savefig(folder / f"{name}.png", dpi=120)


def run(page):
    """Return the names that the code of a page defines, run in the repository's root."""
    code = "".join(part.source for part in doctest.DocTestParser().get_examples(page.read_text()))
    found = {}
    with contextlib.chdir(DOCS.parent), contextlib.redirect_stdout(None):
        exec(compile(code, page, "exec"), found)
    return found


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
    for page in sorted((DOCS / "pages").glob("*.md")):
        draw(page)
    draw_notebook()
