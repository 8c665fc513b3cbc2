"""What backward may answer at a kink, where the slope above and the slope below differ.

Along a probe output j has the slopes a above and b below. A ReLU or a max answers one of the two,
or something between, and that is all it may. A function of several kinks may answer otherwise, and
every framework does: relu(x) - relu(-x) has slope 1 throughout, but the answer at 0 is 0, since
each ReLU says 0 there; written with clamp, each says 1, and the answer is 2. Summed over paths,
"each says 0" is 0, and "each says what it is on its open side" is a + b. So where a and b differ,
the answer for output j may lie in the hull of 0, a, b and a + b, and the whole in the sum of these
over j, by dy.

Where a and b agree, and the function is linear in steps that also move all other entries, it has a
derivative, and the answer is that: no smooth function is excused. A chain or branching of Modules
is, if each part is right by itself, as the kinks of its parts may cancel.

A network of many kinks may answer still otherwise: max(x, y) - max(z, x) at 0 pays x 1 or -1, while
a = b = 0. Nothing at this point alone tells such an answer from a mistake, but points around it do:
there, other combinations of the kinks show other slopes. So an answer outside counts as wrong only
if around the point each output has one of its two slopes, a or b, and never a third. And only if
the answers around the point lie elsewhere, too: the second largest of ten ties is paid at the one
that stands second, which no slope along one entry shows, and few of the points around.

A slope is one only if far smaller steps agree: sqrt(|x| + 1e-8) has no kink at 1e-12 but where a
step is longer than that. What no step can see is left undecided.

There are functions of one straight path and several kinks, with nothing to move the kinks apart, of
which even that is not true, as x - 2 relu(x) + 3 relu(-x) at 0. Nobody writes them by hand, but a
network of one feature without biases may be one. So what has parameters or parts is wrong at a kink
only if one of its parts, alone, is.

A max that pays each of its ties in full is between entry by entry. But where all entries move up
together the ties stay ties, the function has one slope, and all payments together must not exceed
it. So arrays with kinks are also moved as a whole, and the outputs that are smooth then are judged.

Out of sight stays a wrong answer within the hull (ReLU'(0) = 0.3; a max that pays nobody), an
error of less than a hundredth, and one in a layer with parameters that has its kink inside.
"""

from typing import NamedTuple

import numpy as np

from tinygrad_mnist._checks import FloatArray

ALIKE = 0.01  # of both slopes: how far one that counts as one of them may be off


class Slopes(NamedTuple):
    """The slopes of each output along a probe, on either side, and how far they may be off."""

    above: FloatArray
    below: FloatArray
    slack: FloatArray

    @property
    def differ(self) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
        """Whether an output has a kink here."""
        return abs(self.above - self.below) > self._alike

    def bounds(self, dy: FloatArray, tied: bool = False) -> tuple[float, float, float]:
        """Return the least and the largest answer that may be right, and how far they are off."""
        both = np.where(self.differ, self.above + self.below, self.above)
        none = np.where(self.differ | tied, 0, self.above)  # of ties, others may be paid
        choices = dy * np.stack([none, self.above, self.below, both])
        slack = float(np.sum(abs(dy) * self._alike))
        return float(choices.min(axis=0).sum()), float(choices.max(axis=0).sum()), slack

    def include(self, slope: FloatArray) -> bool:
        """Return whether every output has one of its two slopes."""
        nearer = np.minimum(abs(slope - self.above), abs(slope - self.below))
        return bool(np.all(nearer <= self._alike))

    @property
    def _alike(self) -> FloatArray:
        return 2 * self.slack + ALIKE * (abs(self.above) + abs(self.below))
