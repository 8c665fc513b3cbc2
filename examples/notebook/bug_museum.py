"""A museum of famous mistakes, and what each costs: python examples/notebook/bug_museum.py.

The first five are the notebook's, Q1 to Q5. Each exhibit is a training with one part wrong, and
starts with the code of that part. First the checker looks at its layers, at its loss, and at both
together. Then it trains on MNIST, and so does the same training with that part right: same seeds,
same batches. The page in the browser, python -m tinygrad_mnist.page, draws both as they learn.
"""

import argparse
import textwrap
import time
from functools import cache
from itertools import chain

import numpy as np

from tinygrad_mnist.data import mnist
from tinygrad_mnist.page.faults import FAULTS, setups, source_of, verdict

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--epochs", type=int, default=5, help="of each training (default: 5)")
args = parser.parse_args()

training, test = (
    (images[..., None] / np.float32(255), mnist.one_hot(labels))
    for images, labels in mnist.load_data()
)


@cache
def train(setup):
    """Return the test accuracy, None if the loss overflows, and the seconds that it took."""
    started, rng = time.process_time(), np.random.default_rng(3)
    model, loss, optimizer = setup.build()
    with np.errstate(over="ignore", invalid="ignore"):  # some of the trainings diverge
        for _ in range(args.epochs):
            for x, t in setup.batches(*training, rng):
                if not np.isfinite(setup.step(model, loss, optimizer, x, t)):
                    return None, time.process_time() - started
    seconds = time.process_time() - started
    return setup.evaluate(model, training, test), seconds


def show(title, text):
    """Print lines of text, wrapped, beside a title."""
    wrapped = (textwrap.wrap(line, 88, break_on_hyphens=False) for line in text.splitlines())
    print(f"  {title:10}", end="")
    print(*chain(*wrapped), sep="\n            ")


print(f"What the checker says of each mistake; test accuracy after {args.epochs} epochs with it")
print("and without it, all else being equal.")

caught = quiet = 0
for name in FAULTS:
    right, wrong = setups({}, name)
    said, (found, seconds), (wanted, fair) = verdict(wrong, name), train(wrong), train(right)
    caught += said.startswith("wrong")
    quiet += said.startswith("wrong") and found is not None and wanted - found < 0.02

    cost = "cannot train, the loss overflows" if found is None else f"{found:.4f}"
    if seconds > 10 * fair:
        cost += f" in {seconds / fair:.0f} times the time"
    print(f"\n{name}\n{textwrap.indent(source_of(name), '    ')}")
    show("checker", said)
    show("accuracy", f"{cost}; without the mistake {wanted:.4f}")

print(f"\nThe checker catches {caught} of {len(FAULTS)} mistakes. Of these, {quiet} cost less than")
print("0.02 of accuracy: watching the network learn would not reveal them. Those that it cannot")
print("see leave every gradient right: they take a test of the loop, or a look at the data.")
