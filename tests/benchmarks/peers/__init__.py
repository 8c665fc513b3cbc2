"""The contenders: the same network trained, or asked, through each library.

A module's `train(case)` returns step(steps), which trains on the batches of these numbers, a range,
and returns the sum of their losses. Its `ask(case)` returns step(steps), which asks for the outputs
of each batch and returns the last of them. Both tell whether it is the same network everywhere.

This framework trains from its DataLoader, the others from bare slices, which is the cheapest way to
feed any of them.

To add one: write peers/x.py with `train` and `ask`, a row in CONTENDERS, and its key in the
`contenders` of the cases (networks.py) that it takes part in. To have its version and the time of
its import in the report, add it to LIBRARIES (tables.py) and IMPORTS (compare.py).
"""

import os
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module, metadata
from typing import Any

import numpy as np

OURS = "tinygrad_mnist"
OWN = {OURS, "numba", "numpy", "scipy", "threadpoolctl"}  # this framework and what it is built on
os.environ["KERAS_BACKEND"] = "jax"  # before anybody imports Keras


@dataclass(frozen=True, eq=False)
class Contender:
    """One row of the table."""

    label: str
    needs: tuple[str, ...]  # distributions
    module: str
    function: str = "train"
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    whole: bool = False  # runs all images at a go: a shorter pass would pay more for its start

    @property
    def installed(self):
        return all(map(version, self.needs))

    @property
    def is_peer(self):
        return not OWN.issuperset(self.needs)

    def step(self, case):
        module = import_module(f"peers.{self.module}")
        function = getattr(module, self.function if case.trains else "ask")
        return function(case, **self.options)


def version(distribution):
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def asking(answer, x, rows):
    """Return step(steps), which asks for the answers to these batches and returns the last."""

    def step(steps):
        for i in steps:
            y = answer(x[i * rows : (i + 1) * rows])
        return y

    return step


def on_one_thread(contender):
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    label, environment = f"{contender.label}, 1 thread", dict.fromkeys(names, "1")
    return Contender(**vars(contender) | {"label": label, "environment": environment})


ours = partial(Contender, needs=(OURS,), module="ours")
compiled = partial(ours, needs=(OURS, "numba"), function="compiled", whole=True)
double = {"dtype": np.float64}
torch = partial(Contender, needs=("torch",), module="torch")
eager, last = torch("PyTorch"), torch("PyTorch, channels_last", options={"channels_last": True})
floor = Contender("BLAS alone", ("scipy",), "floor")

BEFORE = "before"  # takes part where another checkout is given
CONTENDERS = {
    "ours": ours(OURS),
    BEFORE: ours(f"{OURS}, before"),
    "ours1": ours(f"{OURS}, num_threads(1)", environment={"TINYGRAD_MNIST_NUM_THREADS": "1"}),
    "ours64": ours(f"{OURS}, float64", options=double),
    "compiled": compiled(f"{OURS}, compiled"),
    "compiled64": compiled(f"{OURS}, compiled, float64", options=double),
    "notebook": Contender("the notebook's loop, float64", ("numpy",), "notebook"),
    "torch": eager,
    "torch1": on_one_thread(eager),
    "torch-last": last,
    "torch-last1": on_one_thread(last),
    "torch-fused": torch("PyTorch, fused", options={"fused": True}),
    "jax": Contender("JAX, jit per step", ("jax",), "jax"),
    "scan": Contender("JAX, lax.scan of all steps", ("jax",), "jax", "scan", whole=True),
    "keras": Contender("Keras, on a batch", ("keras", "jax"), "keras"),
    "sklearn": Contender("scikit-learn", ("scikit-learn",), "sklearn"),
    "floor": floor,
    "floor1": on_one_thread(floor),
}
