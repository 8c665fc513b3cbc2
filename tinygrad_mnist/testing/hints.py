"""What mismatches have in common, and what that usually means."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from tinygrad_mnist.testing.report import GradientReport
from tinygrad_mnist.testing.subject import Subject

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
