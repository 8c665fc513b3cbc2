"""What is asked of one example of a layer, a loss or an optimizer: rule by rule, the gradients too.

`grading` asks every question, of a ladder of examples; a checklist stops at the first broken rule.
"""

import math
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.losses import Loss
from tinygrad_mnist.module import Module
from tinygrad_mnist.parameter import Parameter
from tinygrad_mnist.testing.arrays import largest
from tinygrad_mnist.testing.contracts.loss import (
    LATER_LOSS_RULES,
    LOSS_CHECKLIST_RULES,
    LOSS_RULES,
    LossRun,
)
from tinygrad_mnist.testing.contracts.module import MODULE_RULES
from tinygrad_mnist.testing.contracts.module_later import CHECKLIST_RULES, LATER_RULES
from tinygrad_mnist.testing.contracts.module_run import ModuleRun
from tinygrad_mnist.testing.contracts.optimizer import (
    COMPARED_RULES,
    OPTIMIZER_RULES,
    ByFormula,
    Formula,
    Make,
    OptimizerRun,
)
from tinygrad_mnist.testing.contracts.rules import Rules, Run, ask, refusing_skeletons
from tinygrad_mnist.testing.contracts.values import Reference, layer_values, loss_values
from tinygrad_mnist.testing.differences.checker import Checker
from tinygrad_mnist.testing.given import require_takes
from tinygrad_mnist.testing.gradients import check_gradients, check_loss_gradients
from tinygrad_mnist.testing.report import GradientReport
from tinygrad_mnist.testing.subject import FORMS, Form, Inputs, ModuleSubject, inputs_of, numbered

MakeModule = Callable[[int, np.random.Generator], Module]
Targets = Literal["like pred", "labels"] | Callable[[FloatArray, np.random.Generator], Any]
_CALLED = {"sample": "one sample", "batch": "a batch", "axes": "more leading axes"}
_FORMS = "What is taken as a batch is taken in each of the other `forms`."
_LARGE = 100.0  # numbers that an exponential, say, may make far too large of
_GRADIENTS = "Each gradient is the one that central differences give."
Question = tuple[str, Callable[[], Any]]  # a rule's name, and what raises if the rule is broken


class Example(Protocol):
    """Something to ask questions of."""

    @property
    def owner(self) -> str:
        """What messages call it."""

    @property
    def says(self) -> dict[str, str]:
        """What each of its rules says."""

    def questions(self) -> Iterator[Question]:
        """Yield all questions. What the first asks, those after it rest on."""


def questions_of(find_run: Callable[[], Run], *tables: Rules[Any]) -> Iterator[Question]:
    """Yield each rule of some tables as a question of a run, which is made when one is asked."""
    for name, rule in ((name, rule) for rules in tables for name, rule in rules.items()):
        yield name, partial(_ask, find_run, {name: rule})


def _ask(find_run: Callable[[], Run], rules: Rules[Any]) -> None:
    ask(find_run(), rules)


def first_lines(*tables: Mapping[str, Any]) -> dict[str, str]:
    """Return what each rule says, or its string; of one in two tables, the first."""
    says: dict[str, str] = {}
    for name, rule in ((name, rule) for rules in tables for name, rule in rules.items()):
        says.setdefault(name, (rule if isinstance(rule, str) else rule.__doc__).split("\n")[0])
    return says


def class_name(make: Callable[..., object], *args: object) -> str:
    """Return the name of the class of what is made, or of the maker if it fails."""
    try:
        return type(make(*args)).__name__
    except (Exception, SystemExit):
        return getattr(make, "__name__", "make")


class Effects(Run):
    """Counts, over all examples of a layer, the probes in which a mistake could have shown."""

    rule = "unused-parameter"
    says = "Every Parameter changes y in some example."

    def __init__(self) -> None:
        self.examples = 0
        self.probes: Counter[str] = Counter()  # by Parameter, and "x" for all that there are

    def add(self, module: Module, find_report: Callable[[], GradientReport]) -> None:
        """Count those of one example, which are none if its report is inconclusive."""
        self.owner, self.examples = type(module).__name__, self.examples + 1
        telling = {array.name: array.telling for array in find_report().arrays}
        self.probes.update({name: telling.get(name, 0) for name, _ in module.named_parameters()})
        self.probes.update(x=sum(telling.values()))

    def ask(self) -> None:
        """Raise ModuleContractError if there is nothing about one of them."""
        silent = ", ".join(name for name in self.probes or ("x",) if not self.probes[name])
        message = f"some example in which {silent} changes y, got none in {self.examples}"
        self.require(not silent, message)


@dataclass(frozen=True)
class ModuleSettings:
    """How a layer is made, what it takes, and what it is compared with, in all examples.

    Raises:
        GivenError: `make` does not take a number of features and a generator.
    """

    make: MakeModule
    rows_independent: bool = True
    forms: Sequence[Form] = FORMS
    reference: Reference | None = None
    allow_nonfinite: bool = False
    effects: Effects = field(default_factory=Effects)

    def __post_init__(self) -> None:
        """Refuse what does not make a layer."""
        require_takes("make", "(features, rng)", self.make, 2, np.random.default_rng(0))

    @property
    def sample_axes(self) -> int:
        """How many last axes are one sample; 1 if no layer can be made."""
        try:
            return self.make(2, np.random.default_rng(0)).sample_axes
        except (Exception, SystemExit):
            return 1

    def without(self, refused: Container[Form]) -> "ModuleSettings":
        """Return one of the other forms, or of all if there are no others."""
        forms = [form for form in self.forms if form not in refused]
        return replace(self, forms=forms or self.forms)

    @property
    def ordered_forms(self) -> list[Form]:
        """A batch first: it is what every layer is written for."""
        return sorted(self.forms, key=("batch", "sample", "axes").index)


@dataclass
class ModuleExample:
    """A layer on one input, in one mode.

    Attributes:
        settings: What all examples of it share.
        batch: One array for each input, samples along the first axis.
        form: What is made of the batch.
        training: The mode.
        seed: Of the generator that the layer gets, and of the check.
    """

    settings: ModuleSettings
    batch: tuple[NDArray[Any], ...]
    form: Form = "batch"
    training: bool = True
    seed: int = 0

    def __str__(self) -> str:
        """Return the shapes, the form and the mode."""
        mode = "training" if self.training else "evaluation"
        return f"{self.shapes} ({_CALLED[self.form]}), in {mode} mode"

    @property
    def shapes(self) -> str:
        """The shapes of all inputs, and the sizes of large ones."""
        return ", ".join(f"{name} {_shape(x)}" for name, x in numbered("x", self.x))

    @property
    def owner(self) -> str:
        """The name of the layer's class."""
        return class_name(self.settings.make, 2, np.random.default_rng(0))

    @property
    def says(self) -> dict[str, str]:
        """What each of its rules says."""
        first: dict[str, Any] = {"implemented": MODULE_RULES["implemented"], "forms": _FORMS}
        before = first, MODULE_RULES, layer_values(self.settings.reference)
        return first_lines(*before, {"gradients": _GRADIENTS}, LATER_RULES, CHECKLIST_RULES)

    @property
    def x(self) -> tuple[NDArray[Any], ...]:
        """What forward takes."""
        return tuple(self._formed(array) for array in self.batch)

    @cached_property
    def module(self) -> Module:
        """The layer, made for the last axis of the (first) input."""
        return self.made()

    def made(self) -> Module:
        """Return a new layer, which nobody has called."""
        features = self.batch[0].shape[-1]
        module: Any = self.settings.make(features, np.random.default_rng(self.seed))
        if not isinstance(module, Module):
            run, name = Run(), type(module).__name__
            run.owner, run.rule = name, "implemented"
            raise run.broken(f"a Module, class {name}(Module), got an object of another kind")
        return module.train(self.training)

    @cached_property
    def run(self) -> ModuleRun:
        """The layer under the rules."""
        inputs = inputs_of("module_checklist", self.module, self.x)
        with refusing_skeletons(type(self.module).__name__, "forward"):
            subject = ModuleSubject(self.module, inputs)
        dy = Checker("module_checklist", {"seed": self.seed}).cotangent(subject.y_shape)
        return self._run_of(self.module, inputs, dy)

    @cached_property
    def refused(self) -> dict[Form, BaseException]:
        """What comes of the forms in which forward or backward does not run."""
        errors: dict[Form, BaseException] = {}
        for form in self.settings.ordered_forms:
            other = replace(self, form=form)
            try:
                module = other.made()
                module.backward(np.ones(np.shape(module(*other.x))))
            except (Exception, SystemExit) as error:
                errors[form] = error
        return errors

    def questions(self) -> Iterator[Question]:
        """Yield every rule; the first is that forward and backward run."""
        yield "implemented", self._runs
        yield "forms", self._takes_all_forms
        yield from questions_of(
            lambda: self.run, MODULE_RULES, layer_values(self.settings.reference)
        )
        yield "gradients", partial(self.settings.effects.add, self.module, self._report)
        yield from questions_of(lambda: self.run, LATER_RULES)
        unused = self._run_of(self.made(), self.run.inputs, np.ones(()))
        yield from questions_of(lambda: unused, CHECKLIST_RULES)

    def _runs(self) -> None:
        if self.form in self.refused and len(self.refused) < len(self.settings.forms):
            self._takes_all_forms()
        self.run.rule = "implemented"
        self.run.wanted  # noqa: B018  # a forward and a backward

    def _takes_all_forms(self) -> None:
        run = Run()
        run.owner, run.rule = self.owner, "forms"
        for form, error in self.refused.items():
            raise run.broken(
                f"{_CALLED[form]} to be taken as well ({replace(self, form=form).shapes}), got "
                f"{type(error).__name__}: {error}; `forms` says what a layer takes"
            ) from error

    def _run_of(self, module: Module, inputs: Inputs, dy: FloatArray) -> ModuleRun:
        settings = self.settings.without(self.refused)
        return ModuleRun(
            module, inputs, dy, settings.rows_independent, settings.forms, settings.allow_nonfinite
        )

    def _report(self) -> GradientReport:
        return check_gradients(self.module, self.x, contracts=False, seed=self.seed)

    def _formed(self, array: NDArray[Any]) -> NDArray[Any]:
        if self.form == "axes":
            more = (3, 2) if self.seed % 2 else (3,)  # than the batch has
            turned = [np.roll(array, i, axis=0) for i in range(math.prod(more))]
            return np.reshape(turned, more + array.shape)
        return array[0] if self.form == "sample" else array


@dataclass
class LossExample:
    """A loss of one pred and target, and a reference for its value."""

    make: Callable[[], Loss]
    targets: Targets
    reference: Reference | None
    allow_nonfinite: bool
    pred: FloatArray
    seed: int

    def __str__(self) -> str:
        """Return the shapes."""
        return f"pred {_shape(self.pred)}, target of shape {self.target.shape}"

    @property
    def owner(self) -> str:
        """The name of the loss's class."""
        return class_name(self.make)

    @property
    def says(self) -> dict[str, str]:
        """What each of its rules says."""
        before = LOSS_RULES, loss_values(self.reference), {"gradients": _GRADIENTS}
        return first_lines(*before, LATER_LOSS_RULES, LOSS_CHECKLIST_RULES)

    @cached_property
    def target(self) -> NDArray[Any]:
        """What pred is compared with."""
        rng, shape = np.random.default_rng(self.seed), self.pred.shape
        if self.targets == "like pred":
            return rng.standard_normal(shape)
        if self.targets == "labels":
            return rng.integers(0, shape[-1], shape[:-1])
        return np.asarray(self.targets(self.pred, rng))

    @cached_property
    def run(self) -> LossRun:
        """The loss under the rules."""
        return self._made()

    def questions(self) -> Iterator[Question]:
        """Yield every rule; the first is that forward and backward run."""
        yield from questions_of(lambda: self.run, LOSS_RULES, loss_values(self.reference))
        yield "gradients", self._report
        yield from questions_of(lambda: self.run, LATER_LOSS_RULES)
        unused = self._made()
        yield from questions_of(lambda: unused, LOSS_CHECKLIST_RULES)

    def _made(self) -> LossRun:
        return LossRun(self.make(), self.pred, self.target, self.allow_nonfinite)

    def _report(self) -> GradientReport:
        arrays = self.pred, self.target
        return check_loss_gradients(self.make(), *arrays, contracts=False, seed=self.seed)


def _shape(array: NDArray[Any]) -> str:
    """Return what shape an array is of, and that its numbers are large if they are."""
    size = largest(array)
    return f"of shape {array.shape}" + (f" with numbers up to {size:.0f}" if size > _LARGE else "")


def arrays_of(owner: str, batch: Any) -> tuple[NDArray[Any], ...]:
    """Return the arrays of a batch: one, or several in a tuple."""
    given = batch if isinstance(batch, tuple) else (batch,)
    arrays = tuple(check.real_array(owner, "inputs", array) for array in given)
    if not arrays or not all(array.ndim for array in arrays):
        raise check.value_error(owner, "inputs of arrays with an axis of samples", batch)
    return arrays


def require_loss(owner: str, make: Callable[[], Loss], targets: object) -> None:
    """Refuse what does not make a loss, and targets of another kind."""
    require_takes("make", "no arguments", make)
    if not (callable(targets) or targets in ("like pred", "labels")):
        contract = 'targets "like pred" or "labels", or a function of (pred, rng)'
        raise check.value_error(owner, contract, targets)


def compared(
    owner: str, make: Make, reference: Make | None, formula: Formula | None
) -> Make | None:
    """Return what makes the optimizer to compare with: the reference, or one by the formula."""
    require_takes("make", "a list of Parameters", make, [])
    if formula is None:
        return reference
    if reference is not None:
        raise TypeError(check.expected(owner, "a reference or a formula", "both"))
    return partial(ByFormula, formula=formula)


@dataclass
class OptimizerExample:
    """An optimizer, what to compare it with, and the seed of its gradients."""

    make: Make
    reference: Make | None
    seed: int = 0

    def __str__(self) -> str:
        """Return the seed."""
        return f"seed {self.seed}"

    @property
    def owner(self) -> str:
        """The name of the optimizer's class."""
        return class_name(self.make, [Parameter(np.zeros(2))])

    @property
    def says(self) -> dict[str, str]:
        """What each of its rules says."""
        return first_lines(self._rules)

    @property
    def _rules(self) -> dict[str, Callable[[OptimizerRun], None]]:
        return OPTIMIZER_RULES | (COMPARED_RULES if self.reference else {})

    @cached_property
    def run(self) -> OptimizerRun:
        """The optimizer under the rules."""
        return OptimizerRun(self.make, self.reference, self.seed)

    def questions(self) -> Iterator[Question]:
        """Yield every rule; the first is that steps run."""
        return questions_of(lambda: self.run, self._rules)
