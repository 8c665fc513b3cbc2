"""What there is to ask of the page, how it is checked, and what is answered."""

from collections.abc import Callable
from functools import partial
from typing import Any

from tinygrad_mnist import _checks as check
from tinygrad_mnist.data import mnist
from tinygrad_mnist.module import Module
from tinygrad_mnist.page.faults import FAULTS, source_of
from tinygrad_mnist.page.reading import image_of, prediction, reading
from tinygrad_mnist.page.runs import KEPT, Run, Runs
from tinygrad_mnist.page.setups import CHOICES


class Refusal(Exception):
    """An answer that says what is wrong with a request."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


def refused(status: int, contract: str, got: object) -> Refusal:
    """Return a refusal in the words of the package."""
    return Refusal(status, check.expected("page", contract, got))


class Page:
    """What there is to ask. Each method with a row in ROUTES answers what JSON can hold."""

    def __init__(self, model: Module) -> None:
        self.model, self.runs = model, Runs()

    def start(self) -> dict[str, Any]:
        """Return what the page shows before anything is asked."""
        (_, _), (images, labels) = mnist.load_data()
        gallery = sorted(i for digit in range(10) for i in (labels == digit).nonzero()[0][:3])
        return {
            "choices": OFFERED,
            "gallery": images[gallery].reshape(-1, 784).tolist(),
            "labels": labels[gallery].tolist(),
        }

    def read(self, pixels: Any, run: str | None) -> dict[str, Any]:
        """Return what the opened model makes of a drawing, or those of a run as they are now."""
        if run is None:
            return reading(self.model, pixels) | {"broken": None}
        right, *broken = self._run(run).trainings
        by_broken = [prediction(training.snapshot, pixels) for training in broken]
        return reading(right.snapshot, pixels, right.scores_of) | {"broken": (*by_broken, None)[0]}

    def run(self, fault: str, **choices: Any) -> dict[str, Any]:
        """Start a training."""
        run = Run(choices, fault)
        right = str(run.trainings[0])
        return {"run": self.runs.add(run), "model": right, "source": source_of(fault)}

    def progress(self, run: str, since: int) -> dict[str, Any]:
        """Return how far a run is."""
        return self._run(run).progress(since)

    def stop(self, run: str) -> dict[str, Any]:
        """Let a run wait."""
        found = self._run(run)
        found.stop()
        return {"state": found.state}

    def go_on(self, run: str) -> dict[str, Any]:
        """Let a run go on."""
        found = self._run(run)
        found.go_on()
        return {"state": found.state}

    def end(self, run: str) -> dict[str, Any]:
        """End a run, if it is still there: its tab has let it go."""
        found = self.runs.get(run)
        if found is not None:
            found.end()
        return {}

    def _run(self, name: str) -> Run:
        found = self.runs.get(name)
        if found is None:
            contract = f"run to be among the {KEPT} that were last asked for"
            raise refused(404, contract, check.described(name))
        return found


OFFERED = CHOICES | {"fault": ("none", *FAULTS)}


def run_id(value: Any) -> str:
    """Return value; refuse what is no string."""
    if not isinstance(value, str):
        raise check.type_error("page", "run to be a string", value)
    return value


def chosen(name: str, known: tuple[Any, ...], value: Any) -> Any:
    """Return value; refuse what the page does not let one choose."""
    if isinstance(value, bool) or value not in known:
        contract = f"{name} to be one of {', '.join(map(str, known))}"
        raise check.value_error("page", contract, value)
    return value


ROUTES: dict[str, dict[str, Callable[[Any], Any]]] = {  # what each key is checked by
    "/read": {"pixels": image_of, "run": lambda value: None if value is None else run_id(value)},
    "/run": {name: partial(chosen, name, known) for name, known in OFFERED.items()},
    "/progress": {"run": run_id, "since": lambda n: check.integer("page", "since", n, at_least=0)},
    "/stop": {"run": run_id},
    "/go_on": {"run": run_id},
    "/end": {"run": run_id},
}
