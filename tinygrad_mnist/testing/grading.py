"""Grade a layer, a loss or an optimizer: every rule by itself, with what breaks it, and a score.

The examples are the same each time, from the smallest up. NumPy alone is needed; for random
examples, `tinygrad_mnist.testing.strategies` has checklists.
"""

import html
import inspect
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.losses import Loss
from tinygrad_mnist.testing.contracts.optimizer import Formula, Make
from tinygrad_mnist.testing.contracts.values import Reference
from tinygrad_mnist.testing.examples import (
    Effects,
    Example,
    LossExample,
    MakeModule,
    ModuleExample,
    ModuleSettings,
    OptimizerExample,
    Targets,
    arrays_of,
    compared,
    require_loss,
)
from tinygrad_mnist.testing.given import GivenError
from tinygrad_mnist.testing.places import place_of
from tinygrad_mnist.testing.report import (
    GradientCheckError,
    InconclusiveGradientCheck,
    ModuleContractError,
)
from tinygrad_mnist.testing.subject import FORMS, Form, check_forms, global_state_kept

Outcome = Literal["passed", "failed", "not reached"]

# what a rule is worth; any other is worth 1
POINTS = {"gradients": 5, "values": 5, "plain-arrays": 5}
HALVING = ("implemented", "gradients", "values")  # each that did not pass halves the score
_NAMED = 4  # rules in a line
_FLOAT64 = np.dtype(np.float64)


class Verdict(NamedTuple):
    """What became of one rule, what it says, why it failed or was not reached, and its points."""

    rule: str
    outcome: Outcome
    says: str
    why: str = ""
    points: int = 1


@dataclass(frozen=True, repr=False)
class Grade:
    """What became of every rule: true if all passed; `print` it for the table.

    Attributes:
        subject: What was graded, as its type's name.
        verdicts: One for each rule, in the order in which they are asked.
    """

    subject: str
    verdicts: list[Verdict]

    @property
    def score(self) -> float:
        """The points of the rules that passed over all, halved for each of `HALVING` that did not.

        `POINTS` says what a rule is worth.
        """
        reached = sum(v.points for v in self.verdicts if v.outcome == "passed")
        missed = sum(v.rule in HALVING for v in self.verdicts if v.outcome != "passed")
        return 0.5**missed * reached / sum(v.points for v in self.verdicts)

    @property
    def summary(self) -> str:
        """How many rules passed, which failed, and which were not reached, in one line."""
        passed, total = len(self.rules("passed")), len(self.verdicts)
        parts = [f"{passed} of {total} rules passed"]
        outcomes: tuple[Outcome, ...] = ("failed", "not reached")
        parts += [f"{o}: {_listed(self.rules(o))}" for o in outcomes if self.rules(o)]
        return "; ".join(parts)

    def rules(self, outcome: Outcome) -> list[str]:
        """Return the names of the rules that passed, failed or were not reached."""
        return [v.rule for v in self.verdicts if v.outcome == outcome]

    @global_state_kept()
    def also(self, rule: Callable[[], object], points: int = 1) -> "Grade":
        """Return the grade with a rule of your own: a function that raises where it is broken.

        Its name is the rule's, with - for _, and the first line of its docstring what the rule
        says. It is asked where `implemented` passed.
        """
        name = rule.__name__.replace("_", "-")
        verdicts = Verdicts({name: (inspect.getdoc(rule) or "").partition("\n")[0]})
        if "implemented" in self.rules("passed"):
            verdicts.ask(name, rule)
        else:
            verdicts.stopped = "implemented failed"
        (verdict,) = verdicts.grade(self.subject).verdicts
        return replace(self, verdicts=[*self.verdicts, verdict._replace(points=points)])

    def __bool__(self) -> bool:
        """Return whether every rule passed."""
        return len(self.rules("passed")) == len(self.verdicts)

    def __str__(self) -> str:
        """Return the rules that passed, those that failed and why, and those not reached.

        What is to be done stands last, where a terminal shows it.
        """
        longest = max(len(v.rule) for v in self.verdicts)
        lines = [self._title]
        for told in ("passed", "failed"):
            for rule, outcome, says, why, _ in self.verdicts:
                if outcome == told:
                    lines.append(f"  {outcome:<11}  {rule:<{longest}}  {says}")
                    lines += [f"      {line}" for line in why.splitlines()]
        missed: dict[str, list[str]] = {}  # by why
        for v in self.verdicts:
            if v.outcome == "not reached":
                missed.setdefault(v.why, []).append(v.rule)
        lines += [f"  not reached  {_listed(rules)} ({why})" for why, rules in missed.items()]
        return "\n".join(lines)

    __repr__ = __str__

    @property
    def _title(self) -> str:
        counts = f"{len(self.rules('passed'))} of {len(self.verdicts)} rules passed"
        return f"{self.subject}: score {self.score:.2f}, {counts}"

    def to_dict(self) -> dict[str, Any]:
        """Return the subject, the score and the verdicts as plain values."""
        rules = [verdict._asdict() for verdict in self.verdicts]
        return {"subject": self.subject, "score": self.score, "rules": rules}

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write what `to_dict` returns to a file."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    def to_html(self) -> str:
        """Return a table that stands alone, as a notebook shows it."""
        cell, pre = '<td style="text-align: left">{}</td>', "<pre>{}</pre>"
        rows = "".join(
            "<tr>"
            + "".join(cell.format(html.escape(value)) for value in (v.outcome, v.rule, v.says))
            + cell.format(pre.format(html.escape(v.why)) if v.why else "")
            + "</tr>\n"
            for v in self.verdicts
        )
        title = html.escape(self._title)
        return f"<table>\n<caption>{title}</caption>\n{rows}</table>\n"

    _repr_html_ = to_html


def _listed(names: list[str]) -> str:
    shown, more = names[:_NAMED], len(names[_NAMED:])
    return ", ".join([*shown, *([f"{more} more"] if more else [])])


class Verdicts:
    """Collects what becomes of each rule, from one example after the other.

    Args:
        says: What each rule says, in the order in which they are told.
    """

    def __init__(self, says: Mapping[str, str]) -> None:
        self.says = says
        self.passed: set[str] = set()
        self.failed: dict[str, str] = {}  # why
        self.stopped = "no example tells"  # why others are not reached
        self.examples = 0
        self.ended: Counter[str] = Counter()  # examples, by the rule that ended them at the start

    def fill(self, example: Example) -> None:
        """Ask an example's questions, or no more than the first if that fails."""
        self.examples += 1
        for number, (rule, question) in enumerate(example.questions()):
            if number and rule in self.failed:
                continue
            broken = self.ask(rule, question, f"{example}:\n")
            if broken and number == 0:
                self.stopped = f"{broken} failed"
                self.ended[broken] += 1
                return

    def ask(self, rule: str, question: Callable[[], Any], where: str = "") -> str:
        """Ask a question, and return the rule that is broken, which may be another, or ""."""
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                question()
        except InconclusiveGradientCheck:
            return ""  # another example may tell
        except GivenError:
            raise
        except (Exception, SystemExit) as error:  # the code that is graded may raise anything
            broken = error.rule if isinstance(error, ModuleContractError) else rule
            self.failed.setdefault(broken, where + _told(error))
            return broken
        self.passed.add(rule)
        return ""

    def grade(self, subject: str) -> Grade:
        """Return what has been found."""
        return Grade(subject, [self._verdict(rule, says) for rule, says in self.says.items()])

    def _verdict(self, rule: str, says: str) -> Verdict:
        points = POINTS.get(rule, 1)
        if rule in self.failed:
            ended = self.ended[rule]
            count = f"\nNothing else could be asked in {ended} of {self.examples} examples."
            why = self.failed[rule] + (count if ended else "")
            return Verdict(rule, "failed", says, why, points)
        if rule in self.passed:
            return Verdict(rule, "passed", says, points=points)
        return Verdict(rule, "not reached", says, self.stopped, points)


def _told(error: BaseException) -> str:
    """Return the message of an error, and its place; of wrong gradients no table."""
    # a lone surrogate in what foreign code says could be neither printed nor written to a file
    return _message(error).encode(errors="backslashreplace").decode()


def _message(error: BaseException) -> str:
    if isinstance(error, GradientCheckError):
        title, *_ = str(error.report).splitlines()
        wrong = [f"wrong: {a.mismatches[0]}" for a in error.report.arrays if a.mismatches]
        return "\n".join([title, *wrong, *error.report.hints])
    own = error.message if isinstance(error, ModuleContractError) else ""
    lines = own or f"{type(error).__name__}: {error}", place_of(error)
    return "\n".join(filter(None, lines))


@global_state_kept()
def grade(
    make: MakeModule,
    *,
    reference: Reference | None = None,
    forms: Sequence[Form] = FORMS,
    rows_independent: bool = True,
    allow_nonfinite: bool = False,
    inputs: Iterable[Any] | None = None,
) -> Grade:
    """Grade a layer: the contract, its gradients and, with a reference, its values.

    Args:
        make: Makes the layer, given the length of its input's last axis and a generator.
        reference: A function of the same inputs, which y must equal, as in `check_gradients`.
        forms: What the layer takes, as in `check_gradients`.
        rows_independent: As in `check_gradients`.
        allow_nonfinite: As in `check_gradients`.
        inputs: Batches to grade it on, or tuples of batches. None is arrays from (2, 2)
            to (33, 17), or of images from (2, 5, 6, 2), some with zeros, ties and huge numbers.
    """
    check_forms("grade", forms)
    settings = ModuleSettings(make, rows_independent, forms, reference, allow_nonfinite)
    examples = list(_examples(settings, inputs))
    if not examples:
        contract = "inputs with a batch, of two rows or more where rows mix"
        raise ValueError(check.expected("grade", contract, "none"))
    verdicts = Verdicts(examples[0].says | {"unused-parameter": Effects.says})
    for example in examples:
        verdicts.fill(example)
    if "gradients" in verdicts.failed:
        verdicts.stopped = "gradients failed"
    elif settings.effects.examples:
        verdicts.ask("unused-parameter", settings.effects.ask)
    return verdicts.grade(examples[0].owner)


def grade_loss(
    make: Callable[[], Loss],
    *,
    targets: Targets = "like pred",
    reference: Reference | None = None,
    allow_nonfinite: bool = False,
    preds: Iterable[ArrayLike] | None = None,
) -> Grade:
    """Grade a loss: the contract, its gradients and, with a reference, its values.

    Args:
        make: Makes the loss, of no arguments: its class will do.
        targets: What pred is compared with: numbers "like pred", "labels" below the length of its
            last axis, or what a function of pred and a generator returns.
        reference: A function of pred and target, which the loss must equal.
        allow_nonfinite: Whether finite numbers may give NaN or infinity.
        preds: Arrays to grade it on, such as probabilities. None is arrays from (2, 2) to (33, 17),
            some with zeros, ties and huge numbers.
    """
    require_loss("grade_loss", make, targets)
    usual = (pred for pred in _arrays(1) if targets != "labels" or pred.shape[-1] > 1)
    example = partial(LossExample, make, targets, reference, allow_nonfinite)
    examples = [
        example(check.owned("grade_loss", "preds", pred, _FLOAT64), seed)
        for seed, pred in enumerate(usual if preds is None else preds)
    ]
    if not examples:
        raise ValueError(check.expected("grade_loss", "preds of one array or more", "none"))
    return graded(*examples)


def grade_optimizer(
    make: Make, *, reference: Make | None = None, formula: Formula | None = None
) -> Grade:
    """Grade an optimizer: where its steps lead, and what they leave alone.

    Args:
        make: Makes the optimizer, given a list of Parameters: whatever has a `step()`.
        reference: Makes an optimizer whose steps are right.
        formula: Instead of a reference, one step of one array: formula(value, gradient, state)
            returns the next value and the next state, of which the first is None.
    """
    reference = compared("grade_optimizer", make, reference, formula)
    return graded(*(OptimizerExample(make, reference, seed) for seed in range(3)))


@global_state_kept()
def graded(*examples: Example) -> Grade:
    """Return the verdicts of examples of one thing."""
    verdicts = Verdicts(examples[0].says)
    for example in examples:
        verdicts.fill(example)
    return verdicts.grade(examples[0].owner)


_SIDES = ((2, 2), (3, 4), (1, 3), (5, 1), (33, 17))  # rows and features


def _arrays(sample_axes: int) -> Iterator[FloatArray]:
    """Yield arrays of normal numbers, from the smallest up, then zeros with ties, and huge ones."""
    rng, more = np.random.default_rng(0), [5 + i for i in range(sample_axes - 1)]
    normal = [rng.standard_normal((rows, *more, features)) for rows, features in _SIDES]
    tied = np.round(normal[1])
    tied[0] = 0
    yield from [*normal, tied, 1e3 * normal[1]]


def _examples(settings: ModuleSettings, inputs: Iterable[Any] | None) -> Iterator[ModuleExample]:
    """Yield the first batch in every form and mode, and any other as a batch and in one of them.

    A form that is refused there is not asked for again: it may run by chance, as of three features.
    """
    batches = _arrays(settings.sample_axes) if inputs is None else inputs
    tuples = (arrays_of("grade", batch) for batch in batches)
    enough = (batch for batch in tuples if settings.rows_independent or len(batch[0]) > 1)
    for i, batch in enumerate(enough):
        ways = [(form, training) for form in settings.ordered_forms for training in (True, False)]
        for form, training in (ways[0], ways[i % len(ways)]) if i else ways:
            yield ModuleExample(settings, batch, form, training, seed=i)
        settings = settings if i else settings.without(ModuleExample(settings, batch).refused)
