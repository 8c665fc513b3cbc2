"""Kill a training run with SIGKILL at random moments, resume it each time, compare every bit.

    python tests/training/kill_and_resume.py 50
    python tests/training/kill_and_resume.py 50 compiled

The run has dropout, shuffling, momentum, a schedule and validation, and a checkpoint every other
batch. It is started over and over, each time killed after a random time, until it ends; what it
ends with must be what an uninterrupted run ends with: parameters, optimizer, generators, history.
When it has ended before all kills were spent, it begins again from nothing.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tinygrad_mnist import SGD, DataLoader, Dropout, Linear, MSELoss, ReLU, Sequential
from tinygrad_mnist.data import mnist
from tinygrad_mnist.optim.schedules import cosine_decay, warm_up
from tinygrad_mnist.training import LearningRate, fit


def train(folder, compiled):
    """Train, or go on training, and write down what it ends with."""
    (images, labels), _ = mnist.load_data()
    x, t = mnist.preprocess(images[:1050], labels[:1050])
    rng = np.random.default_rng(1)
    model = Sequential(
        Linear(784, 32, rng=rng, input_grad=False),
        ReLU(),
        Dropout(0.3, rng=rng),
        Linear(32, 10, rng=rng),
    )
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    loader = DataLoader(x[:1000], t[:1000], batch_size=64, shuffle=True, rng=rng)
    history = fit(
        model,
        MSELoss(),
        optimizer,
        loader,
        epochs=4,
        validation=DataLoader(x[1000:], t[1000:], batch_size=50),
        callbacks=[LearningRate(warm_up(10, cosine_decay(0.2, steps=54)), per="step")],
        checkpoint=folder / "run.npz",
        checkpoint_every=2,
        progress=False,
        resume=True,
        compiled=compiled,
    )
    result = {
        "parameters": {name: a.tobytes().hex() for name, a in model.state_dict().items()},
        "velocities": [v.tobytes().hex() for v in optimizer.state_dict()["velocities"]],
        "lr": optimizer.lr,
        "generator": rng.bit_generator.state,
        "history": [{**record, "seconds": None} for record in history.records],
    }
    (folder / "result.json").write_text(json.dumps(result))


def written(folder):
    """Return when the checkpoint was last written, None if never."""
    path = folder / "run.npz"
    return path.stat().st_mtime_ns if path.exists() else None


def run(folder, seconds=None):
    """Run a process that trains in folder; return whether it ended, and how long it wrote.

    It is killed so many seconds after its first checkpoint: an earlier kill proves nothing.
    """
    before = written(folder)
    process = subprocess.Popen([sys.executable, __file__, "train", folder, *sys.argv[2:]])
    while process.poll() is None and written(folder) == before:
        time.sleep(0.001)
    started = time.perf_counter()
    try:
        if process.wait(seconds):
            raise SystemExit(f"the run failed with {process.returncode}")
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False, seconds
    return True, time.perf_counter() - started


def main(kills):
    with tempfile.TemporaryDirectory() as name:
        root, spent, runs = Path(name), 0, 0
        (root / "whole").mkdir()
        _, seconds = run(root / "whole")
        wanted = (root / "whole" / "result.json").read_text()
        while spent < kills:
            folder = root / str(runs)
            folder.mkdir()
            while not run(folder, random.uniform(0, seconds) if spent < kills else None)[0]:
                spent += 1
            runs += 1
            if (folder / "result.json").read_text() != wanted:
                raise SystemExit(f"run {runs} ended with something else")
    print(f"{spent} kills in {runs} runs: all bits the same")


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(Path(sys.argv[2]), "compiled" in sys.argv)
    else:
        main(int(sys.argv[1]))
