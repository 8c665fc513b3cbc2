"""Notebooks in a fresh kernel: what shows itself, progress, and a cell interrupted.

`python tests/test_notebooks.py` executes examples/tour.ipynb, and writes what it shows into it.
"""

import base64
import hashlib
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib", reason="the tour needs the extra `plot`")
pytest.importorskip("numba", reason="a cell compiles: the extra `compiled`")
pytestmark = pytest.mark.slow

PREPARED = """
import signal
import numpy as np
from tinygrad_mnist import *
from tinygrad_mnist.training import *
from tinygrad_mnist.training import _progress
rng = np.random.default_rng(0)
labels = np.arange(60) % 3
x = rng.normal(labels[:, None], 0.3, (60, 4))
def made():
    model = Sequential(Linear(4, 8, rng=1), ReLU(), Linear(8, 3, rng=2))
    loader = DataLoader(x, labels, 10, shuffle=True, rng=3)
    return model, CrossEntropyLoss(), SGD(model.parameters(), lr=0.1), loader
"""

CELLS = {
    "lines": "fit(*made(), epochs=3, validation=(x, labels))",
    "silent": "history = fit(*made(), epochs=3, progress=False)",
    "bar": """
_progress._DELAY, _progress._EVERY = 1e-9, 0
history = fit(*made(), epochs=2, progress="bar")
""",
    "compiling": """
import time
from tinygrad_mnist.compiled import waiting
waiting._SECOND = 0.01
with waiting.compiling("a kernel", np.dtype(np.float32)):
    time.sleep(0.2)
""",
    "interrupted": """
class Stops(Callback):
    def before_step(self, run):
        if run.step == 8:
            signal.raise_signal(signal.SIGINT)
run, history = made(), None
history = fit(*run, epochs=5, callbacks=[Stops()], progress="lines")
""",
    "as the note says": """
import sys; history = sys.last_value.history
history = fit(*run, epochs=3, history=history, progress="lines")
""",
    "again": "history = fit(*run, epochs=3, history=history, progress='lines')",
    "model": "run[0]",
    "summary": "summary(run[0], (4,))",
}


TOUR = Path(__file__).parents[1] / "examples" / "tour.ipynb"


def executed(notebook):
    """Run the cells in a fresh kernel, the next one also after an error; return them."""
    nbclient.NotebookClient(notebook, timeout=120, allow_errors=True, record_timing=False).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def cells():
    """Return the code cells of the tour, on fewer epochs, and of the cells above, by name."""
    notebook = nbformat.read(TOUR, 4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("epochs=5", "epochs=1").replace("epochs=8", "epochs=2")
    notebook.cells += map(nbformat.v4.new_code_cell, [PREPARED, *CELLS.values()])
    *tour, prepared = executed(notebook)[: -len(CELLS)]
    assert prepared.outputs == []
    found = [cell.outputs for cell in notebook.cells[-len(CELLS) :]]
    return tour, dict(zip(CELLS, found, strict=True))


@pytest.fixture(scope="module")
def outputs(cells):
    return cells[1]


def printed(outputs):
    """Return the lines of its stdout; there is nothing on stderr, which has a red background."""
    streams = [output for output in outputs if output.output_type == "stream"]
    assert {stream.name for stream in streams} <= {"stdout"}
    return "".join(stream.text for stream in streams).splitlines()


def shown(outputs):
    """Return what the last line of a cell shows, by its type."""
    assert outputs[-1].output_type == "execute_result"
    return outputs[-1].data


def test_a_line_is_printed_after_each_epoch_and_the_history_shows_its_table(outputs):
    lines = printed(outputs["lines"])
    assert [re.sub(r"\d\.\d+", "#", line) for line in lines] == [
        f"epoch {i}/3  loss # val #  accuracy # val #  # s  best" for i in (1, 2, 3)
    ]
    (html,) = re.findall("<table>.*</table>", shown(outputs["lines"])["text/html"])
    assert html.count("<tr>") == 4
    assert html.count(">best<") == 1
    assert shown(outputs["lines"])["text/plain"].splitlines()[3].startswith("3 ")
    assert outputs["silent"] == []


@pytest.mark.parametrize("name", ["bar", "compiling"])
def test_what_waits_is_one_output_and_empty_at_the_end(outputs, name):
    (output,) = outputs[name]
    assert output.output_type == "display_data"
    assert output.data == {"text/plain": "", "text/html": ""}


def test_an_interrupted_cell_says_how_to_go_on_and_it_does(outputs):
    *streams, error = outputs["interrupted"]
    assert [line[:9] for line in printed(streams)] == ["epoch 1/5"]
    assert error.ename == "KeyboardInterrupt"
    told = "\n".join(error.traceback)
    advice = CELLS["as the note says"].splitlines()[1]
    assert told.endswith(f"goes on with epoch 2.\nIn a notebook: {advice}")
    assert [line[:9] for line in printed(outputs["as the note says"])] == ["epoch 2/3", "epoch 3/3"]


def test_a_cell_that_is_run_twice_trains_no_more_and_says_so(outputs):
    (line,) = printed(outputs["again"])
    assert line == "nothing left to train: the history has 3 epochs, of epochs=3 in all"


@pytest.mark.parametrize("name", ["model", "summary"])
def test_what_has_a_table_shows_it(outputs, name):
    assert "<table>" in shown(outputs[name])["text/html"]


def sources_hash(notebook):
    """Return what changes with any code cell."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def kinds(cell):
    """Yield what a cell shows, without its numbers and further lines; not a bar that is over."""
    for output in cell.outputs:
        text = output.get("text") or output.get("data", {}).get("text/plain") or ""
        first = re.sub(r"[\d.,]+|  best", "#", text.partition("\n")[0])
        if text:
            yield output.output_type, sorted(output.get("data", {})), first


def test_the_tour_is_what_a_fresh_kernel_shows(cells):
    """If not: python tests/test_notebooks.py."""
    tour = nbformat.read(TOUR, 4)
    assert tour.metadata.executed == sources_hash(tour)
    written = [cell for cell in tour.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in written] == list(range(1, len(written) + 1))
    for old, new in zip(written, cells[0], strict=True):
        assert list(kinds(old)) == list(kinds(new)), old.source


def test_the_tour_shows_progress_a_table_a_report_and_four_pictures():
    shown = [output for cell in nbformat.read(TOUR, 4).cells for output in cell.get("outputs", [])]
    data = [output.data for output in shown if output.output_type == "execute_result"]
    pictures = [base64.b64decode(d["image/png"]) for d in data if "image/png" in d]
    assert len(pictures) == 4
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert sum("<table" in d.get("text/html", "") for d in data) == 4
    assert sum("epoch 5/5" in output.get("text", "") for output in shown) == 1
    assert TOUR.stat().st_size < 400_000
    for page in re.findall(r"\]\((.*?)\)", TOUR.read_text()):
        assert (TOUR.parent / page).exists()


def main():
    notebook = nbformat.read(TOUR, 4)
    for cell in executed(notebook):
        outputs, cell.outputs = cell.outputs, []
        for output in outputs:
            assert output.output_type != "error", output
            if output.output_type == "stream" and cell.outputs[-1:] and "text" in cell.outputs[-1]:
                cell.outputs[-1].text += output.text  # lines printed one after the other
            elif output.get("data", {}).get("text/plain") != "":  # a bar that is over
                cell.outputs.append(output)
    notebook.metadata.executed = sources_hash(notebook)
    nbformat.write(notebook, TOUR)


if __name__ == "__main__":
    main()
