"""What mismatches have in common, what that usually means, and which part of a module is wrong."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Parallel, Residual, Sequential
from tinygrad_mnist.testing.report import GradientReport
from tinygrad_mnist.testing.subject import ModuleSubject, Subject

Arrays = tuple[NDArray[Any], ...]
_NAMED = 4  # entries in a hint
_alike = partial(np.isclose, rtol=1e-4, atol=1e-9)  # two ratios that differ by less are one


def about_ratio(report: GradientReport, subject: Subject) -> Iterator[str]:
    """Yield a sentence if analytic / numeric is one number at every mismatch.

    The subject's numbers of samples and outputs are telling factors, and so are the probabilities
    of its dropouts.
    """
    if not any(mismatch.numeric for mismatch in report.mismatches):
        yield "Every mismatch has numeric = 0: the output does not depend on these entries."
        return
    ratios = np.array([mismatch.ratio for mismatch in report.mismatches])
    if len(ratios) < 2 or not _alike(ratios, ratios[0]).all():
        return
    meanings = [text for factor, text in _telling_factors(subject) if _alike(ratios[0], factor)]
    text = f"Every mismatch has analytic = {ratios[0]:.6g} x numeric"
    yield f"{text}: {'; or '.join(meanings)}." if meanings else f"{text}."


def _telling_factors(subject: Subject) -> Iterator[tuple[float, str]]:
    yield 0.0, "this gradient is never added"
    yield -1.0, "the sign is wrong"
    yield 2.0, "a factor 2 too many, as of a square, or added twice"
    yield 0.5, "a factor 2 is missing, as of a square"
    rows, size = subject.samples, math.prod(subject.y_shape)
    for n, what in ((rows, f"the batch size {rows}"), (size, f"the number of elements {size}")):
        if n > 1:
            yield float(n), f"{what}: a mean forward, a sum backward"
            yield 1 / n, f"1 over {what}: a sum forward, a mean backward"
    for module in subject.modules:
        p = getattr(module, "p", None)  # a dropout, also one that is not ours
        if isinstance(p, float) and 0 < p < 1:
            name = f"{type(module).__name__}(p={p:g})"
            yield 1 - p, f"1 - p of {name}: its 1 / (1 - p) is missing in backward"
            yield 1 / (1 - p), f"1 / (1 - p) of {name}: it is applied twice in backward"


def about_open(report: GradientReport) -> Iterator[str]:
    """Yield a sentence for each array of which entries are undecided."""
    for array in report.arrays:
        entries = [f"{array.name}{list(i)}" for i in array.open if i is not None]
        named = [*entries, *(["a direction"] if None in array.open else [])]
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        if named:
            yield (
                f"Undecided, on a kink: {', '.join(named[:_NAMED])}{more}. Move x a little, or "
                "check each part by itself."
            )


def only_joins(modules: Sequence[Module]) -> bool:
    """Return whether whatever has parts is a chain or a branching, with no arithmetic but a sum."""
    joins = (Sequential, Residual, Parallel)
    return all(type(module) in joins for module in modules if any(module.children()))


def about_parts(subject: Subject, fails: Callable[[Module, Arrays], bool]) -> Iterator[str]:
    """Yield a sentence for each part of a module, at any depth, that is called twice or is wrong.

    A part is wrong if it fails alone, on the inputs that it has in a forward of the whole. Of parts
    inside one another, the outermost is called twice, and the innermost is wrong.
    """
    if not isinstance(subject, ModuleSubject):
        return
    parts, calls = _parts(subject), _calls(subject)
    times = Counter(path for path, _ in calls)
    again = [path for path, count in times.items() if count > 1]
    for path in again:
        if not any(path.startswith(f"{outer}.") for outer in again):
            often = "twice" if times[path] == 2 else f"{times[path]} times"
            yield (
                f"{path} is called {often} in one forward, but remembers only the last call: make "
                "one layer for each call."
            )
    for path in _wrong(parts, calls, fails):
        name = type(parts[path]).__name__
        yield f"Look at layer {path}, {name}: checked alone, it fails too."


def has_wrong_part(subject: Subject, fails: Callable[[Module, Arrays], bool]) -> bool:
    """Return whether a part of a module fails alone, on the inputs that it has in the whole."""
    if not isinstance(subject, ModuleSubject):
        return False
    return bool(_wrong(_parts(subject), _calls(subject), fails))


def _wrong(
    parts: dict[str, Module],
    calls: list[tuple[str, Arrays]],
    fails: Callable[[Module, Arrays], bool],
) -> list[str]:
    """Return the paths of the innermost parts that fail, in order."""
    wrong: list[str] = []
    for path, inputs in reversed(dict(calls).items()):  # a part is called after what it is in
        if not any(inner.startswith(f"{path}.") for inner in wrong) and fails(parts[path], inputs):
            wrong.append(path)
    return wrong[::-1]


def _parts(subject: ModuleSubject) -> dict[str, Module]:
    return {path: part for path, part in subject.module.named_modules() if path}


def _calls(subject: ModuleSubject) -> list[tuple[str, Arrays]]:
    """Return the path and the inputs of each call of a part in one forward, in order."""
    watched = subject.copy()
    calls: list[tuple[str, Arrays]] = []

    def recorded(path: str, forward: Callable[..., Any], *inputs: Any, **keywords: Any) -> Any:
        calls.append((path, tuple(np.array(x) for x in inputs)))
        return forward(*inputs, **keywords)

    for path, part in _parts(watched).items():
        watch = partial(recorded, path, part.forward)
        setattr(part, "forward", watch)  # noqa: B010  # mypy lets nobody assign to a method
    watched.outputs()
    return calls
