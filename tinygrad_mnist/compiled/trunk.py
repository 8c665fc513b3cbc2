"""The part of a network before Flatten in numbers: where its images are, and tables of offsets.

What backward needs of a group is kept until then: what convolutions have read, and bits of ReLUs
and pools. All other images are where each group has its own in turn. There y and its gradient dy
have one place: y has been read before there is a dy. Nothing is written to the zeros around an
image.
"""

import math
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist import _blas
from tinygrad_mnist import _checks as check
from tinygrad_mnist.compiled.images import CHANNELS, OPERATION, TAPS, TILES, Trunk, Work
from tinygrad_mnist.compiled.kernel import (
    CONV2D,
    DROPOUT,
    FLATTEN,
    LANES,
    LINEAR,
    MAXPOOL2D,
    NOWHERE,
    RELU,
    UNFLATTEN,
)
from tinygrad_mnist.compiled.layout import Layout, room_of
from tinygrad_mnist.compiled.masks import Masks
from tinygrad_mnist.compiled.plan import OF_IMAGES, Rule, check_bias, reshaped
from tinygrad_mnist.compiled.vectors import REGISTERS

Shape = tuple[int, ...]
Margins = tuple[int, int, int, int]  # how many zeros are above and below, left and right
_NONE = (0, 0, 0, 0)
_LINE = 64  # bytes that a cache holds or does not hold together


class _Step(NamedTuple):
    """An operation from x to y. A Linear is a CONV2D of one pixel."""

    kind: int
    rule: Rule
    x: Shape  # (H, W, C)
    y: Shape
    margins: Margins = _NONE  # of x
    rectified: bool = False  # whether a MAXPOOL2D is a ReLU, too


class PlannedTrunk:
    """A trunk as the kernel needs it, and how much memory it works on.

    Args:
        owner: Who refuses what does not fit.
        rules: Those of the layers before Flatten, by their paths; an Unflatten may come first.
        layout: Where the parameters are.
        shape: That of a sample.
        masks: Where those of its Dropouts are added.
    """

    def __init__(
        self, owner: str, rules: dict[str, Rule], layout: Layout, shape: Shape, masks: Masks
    ) -> None:
        steps = _steps(owner, rules, shape)
        self.shape = steps[-1].y  # of a sample's features
        self.multiply_adds = max(map(_multiply_adds, steps))  # of a sample in one operation
        self._layout, self._dtype = layout, layout.dtype
        self._kept, self._scratch = _Region(self._dtype), _Region(self._dtype)
        self._tables, self._bits = list[NDArray[np.int64]](), 0
        first = next((k for k, step in enumerate(steps) if step.kind == CONV2D), len(steps))
        operations = np.zeros(len(steps), OPERATION).view(np.recarray)
        self._give_places(operations, steps, first)
        for op, step in zip(operations, steps, strict=True):
            op.kind, op.rectified, op.bits = step.kind, step.rectified, self._bits
            if step.kind == CONV2D:
                op.forward, op.gradient = self._forward(op, step), self._gradient(op, step)
                op.backward = self._backward(op, step)
            elif step.kind == MAXPOOL2D:
                (kh, kw), (sh, sw), (h, w, C) = step.rule.window, step.rule.stride, step.y
                i, j = np.indices((kh, kw))
                op.window = self._table(i * op.x.row + j * LANES), kh * kw, sh, sw
                op.disjoint = (kh, kw) == (sh, sw) and (h * sh, w * sw, C) == step.x
                self._bits += math.prod(step.y) * kh * kw
            elif step.kind == RELU:
                self._bits += math.prod(step.y)
            else:
                op.mask = masks.add(math.prod(step.x), step.rule.p, step.rule.rng)
                op.scale = 1 / (1 - step.rule.p)
        operations.bits_step = self._bits
        # gradients that nobody reads go behind all others
        self._room = max(map(self._room_of, steps), default=0)
        self.trunk = Trunk(operations, np.concatenate([*self._tables, np.zeros(1, int)]), first)

    def work(self, parts: int, samples: int) -> Work:
        """Return zeros to work on, for batches of up to so many samples in so many parts."""
        groups = -(-samples // (LANES * parts))  # of a part
        n = _rounded(self._scratch.used + groups * self._kept.used, self._dtype)
        features = np.zeros((samples, math.prod(self.shape)), self._dtype)
        inputs = features.view()
        inputs.flags.writeable = False
        return Work(
            _blas.aligned_zeros((parts, n), self._dtype),
            np.zeros((parts, groups * self._bits), np.uint8),
            np.zeros((parts, self._layout.size + self._room), self._dtype),
            features,
            inputs,
        )

    def _give_places(self, operations: Any, steps: list[_Step], first: int) -> None:
        """Give x, y, dx and dy of each operation a place."""
        kept = []
        for k, (op, step) in enumerate(zip(operations, steps, strict=True)):
            # around dy: what a window of dx sees on the left and the right
            *_, left, right = (max(0, step.rule.window[1] - 1 - n) for n in step.margins)
            conv = step.kind == CONV2D
            beside = (0, 0, left, right) if conv and k > first else _NONE
            op.dy = self._scratch.place(step.y, beside, CHANNELS)
            if conv:
                op.x = self._kept.place(step.x, step.margins)
                kept.append(op)
            else:
                op.x = operations[k - 1].dy if k else self._scratch.place(step.x)
        for op in kept:  # they are behind the scratch, group after group
            op.x.begin += self._scratch.used
            op.x.step = self._kept.used
        operations.dx[1:], operations.y[:-1] = operations.dy[:-1], operations.x[1:]
        operations.y[-1] = operations.dy[-1]

    def _forward(self, op: Any, step: _Step) -> tuple[int, ...]:
        """Return the WEIGHTS of what a y sees of x: all channels of a pixel, then of the next."""
        (kh, kw), (top, _, left, _) = step.rule.window, step.margins
        i, j, c = np.indices((kh, kw, step.x[2]))
        pixels = c * op.x.plane + i * op.x.row + j * LANES
        begin = self._table(pixels, self._weights(step, i, j, c, 0))
        b, tile = self._layout.begin(step.rule.bias), _tile_of(op.y, op.x, kw, left, self._dtype)
        return kh, kw, top, left, begin, pixels.size, 1, b, tile

    def _gradient(self, op: Any, step: _Step) -> tuple[int, ...]:
        """Return where x and dW are: channel by channel, as one of x stays in the nearest cache."""
        (kh, kw), (top, _, left, _), rule = step.rule.window, step.margins, step.rule
        c, i, j = np.indices((step.x[2], kh, kw))
        pixels = c * op.x.plane + (i - top) * op.x.row + (j - left) * LANES
        weights = self._weights(step, i, j, c, 0)
        room, more = self._room_of(step), (0, -pixels.size % TAPS)
        begin = self._table(
            np.pad(pixels.reshape(-1), more, mode="edge"),
            np.pad(weights.reshape(-1), more, constant_values=self._layout.size),
        )
        W, b = self._layout.begin(rule.weight), self._layout.begin(rule.bias)
        return begin, pixels.size + more[1], W, pixels.size * room, b, room

    def _backward(self, op: Any, step: _Step) -> tuple[int, ...]:
        """Return the WEIGHTS of what a dx sees of dy, in reverse."""
        (kh, kw), (top, _, left, _) = step.rule.window, step.margins
        i, j, o = np.indices((kh, kw, step.y[2]))
        pixels = o * op.dy.plane + i * op.dy.row + j * LANES
        begin = self._table(pixels, self._weights(step, kh - 1 - i, kw - 1 - j, 0, o))
        top, left = kh - 1 - top, kw - 1 - left
        tile = _tile_of(op.x, op.y, kw, left, self._dtype)
        return kh, kw, top, left, begin, pixels.size, self._room_of(step), NOWHERE, tile

    def _weights(self, step: _Step, i: Any, j: Any, c: Any, o: Any) -> Any:
        """Return where W[i, j, c, o] is."""
        row = (i * step.rule.window[1] + j) * step.x[2] + c
        return self._layout.begin(step.rule.weight) + row * self._room_of(step) + o

    def _room_of(self, step: _Step) -> int:
        return room_of(step.y[2], self._dtype)

    def _table(self, *lists: NDArray[np.int64]) -> int:
        """Add lists to the tables, and return where they begin."""
        begin = sum(table.size for table in self._tables)
        self._tables += [numbers.reshape(-1) for numbers in lists]
        return begin


class _Region:
    """Memory for images of a dtype, one behind the other."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype, self.used = dtype, 0

    def place(self, shape: Shape, margins: Margins = _NONE, channels: int = 1) -> tuple[int, ...]:
        """Return a PLACE with room for a multiple of so many channels, and step 0.

        From one channel to the next there is an odd number of cache lines. With a power of two,
        pixels of many channels would compete for a few places in the cache.
        """
        (H, W, C), (top, bottom, left, right) = shape, margins
        row = (left + W + right) * LANES
        line = _LINE // self._dtype.itemsize
        plane = (_rounded((top + H + bottom) * row, self._dtype) // line | 1) * line
        begin = self.used + top * row + left * LANES
        self.used += (C + -C % channels) * plane
        return C, H, W, begin, 0, plane, row


def _rounded(n: int, dtype: np.dtype[Any]) -> int:
    """Return n numbers, rounded up to whole cache lines."""
    return n + -n % (_LINE // dtype.itemsize)


def _tile_of(y: Any, x: Any, columns: int, left: int, dtype: np.dtype[Any]) -> int:
    """Return how many numbers of a row of y to compute at a time, from so many columns of x.

    CHANNELS tiles stay in three quarters of the registers. A weight takes as long as a tile has
    numbers, but as 22 at least: each sum waits for the one before.
    """
    fitting = [n for n in TILES if n * dtype.itemsize * CHANNELS <= REGISTERS * 3 // 4]
    fitting = [n for n in fitting if n <= y.columns * LANES] or [LANES]

    def time(n: int) -> int:
        width = n // LANES
        at = np.minimum(np.arange(0, y.columns, width), y.columns - width)
        first = np.maximum(0, left - at - width + 1)
        last = np.minimum(columns, left - at + x.columns)
        return max(n, 22) * int(np.maximum(0, last - first).sum())

    return min(reversed(fitting), key=time)


def parted(rules: dict[str, Rule]) -> tuple[dict[str, Rule], dict[str, Rule]]:
    """Return the rules before and behind Flatten, or none and all where no images are."""
    if not any(rule.kind in OF_IMAGES for rule in rules.values()):
        return {}, rules
    items, kinds = [*rules.items()], [rule.kind for rule in rules.values()]
    at = kinds.index(FLATTEN) if FLATTEN in kinds else len(kinds)
    return dict(items[:at]), dict(items[at + 1 :])


def check_images(owner: str, rules: dict[str, Rule]) -> None:
    """Refuse what no kernel can do with images."""

    def refuse(contract: str, found: object) -> NoReturn:
        raise ValueError(check.expected(owner, contract, f"{found}; use the eager loop"))

    seen = [path for path, rule in rules.items() if rule.kind in OF_IMAGES]
    if not seen:
        return
    before, behind = parted(rules)
    if not any(rule.kind == LINEAR for rule in behind.values()):
        refuse("a Flatten and a Linear behind images", "none")
    path = [*rules][len(before)]
    if rules[path].axes != 3:
        refuse(f"layer {path} to flatten 3 axes", rules[path].axes)
    late = [path for path in seen if path in behind]
    late += [path for path in [*before][1:] if rules[path].kind == UNFLATTEN]
    if late:
        refuse("images in the beginning alone", f"some at layer {late[0]}")
    for path, rule in before.items():
        if rule.kind == CONV2D and rule.stride != (1, 1):
            refuse(f"stride 1 in layer {path}", rule.stride)


def _steps(owner: str, rules: dict[str, Rule], shape: Shape) -> list[_Step]:
    """Return what is to be done, or refuse layers that do not fit.

    A MAXPOOL2D right behind a RELU comes first: max(y) is then found among fewer numbers.
    """
    steps: list[_Step] = []
    for path, rule in rules.items():
        if rule.kind == UNFLATTEN:
            shape = reshaped(owner, path, rule, shape)
            continue
        if len(shape) != 3:
            raise ValueError(check.expected(owner, "samples of shape (H, W, C)", shape))
        step = _step(owner, path, rule, shape)
        if step.kind == MAXPOOL2D and steps and steps[-1].kind == RELU:
            steps.pop()
            step = step._replace(rectified=True)
        steps.append(step)
        shape = step.y
    return steps


def _step(owner: str, path: str, rule: Rule, shape: Shape) -> _Step:
    if rule.kind in (RELU, DROPOUT):
        return _Step(rule.kind, rule, shape, shape)
    (H, W, C), (kh, kw), (sh, sw) = shape, rule.window, rule.stride
    kind, margins = rule.kind, _NONE
    if kind in (CONV2D, LINEAR):
        O = rule.weight.data.shape[-1]  # noqa: E741
        wanted = (kh, kw, C, O) if kind == CONV2D else (C, O)
        check.same_shape(owner, f"weight of layer {path}", rule.weight.data, wanted)
        check_bias(owner, path, rule, O)
        kind, margins, C = CONV2D, _margins(rule), O
    elif kind != MAXPOOL2D:
        raise check.value_error(owner, f"a rule of the kernel's for layer {path}", kind)
    top, bottom, left, right = margins
    H, W = top + H + bottom, left + W + right
    if kh > H or kw > W:
        contract = f"a window that fits the images of layer {path}"
        raise ValueError(check.expected(owner, contract, f"{kh} x {kw} on {H} x {W}"))
    return _Step(kind, rule, shape, ((H - kh) // sh + 1, (W - kw) // sw + 1, C), margins)


def _multiply_adds(step: _Step) -> int:
    (h, w, O), C = step.y, step.x[2]  # noqa: E741
    return h * w * math.prod(step.rule.window) * C * O if step.kind == CONV2D else 0


def _margins(rule: Rule) -> Margins:
    (kh, kw), padding = rule.window, rule.padding
    if padding == "same":
        return (kh - 1) // 2, kh // 2, (kw - 1) // 2, kw // 2
    rows, columns = padding
    return rows, rows, columns, columns
