"""The checking kit beside `torch.autograd.gradcheck` and `jax.test_util.check_grads`.

    python tests/benchmarks/checkers.py
    python tests/benchmarks/checkers.py ties relu  # the rows with one of these words

Right and wrong functions, each in PyTorch and in JAX, at the same arrays. A cell is a checker's
verdict and its seconds, of a second run, when everything has been compiled; in bold where it is not
the truth. "right" where a function has no slope means that the answer is one of its subgradients.
Each checker runs as it is by default, JAX's with modes=("rev",), as it has no backward otherwise.
"""

import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.test_util import check_grads
from torch.autograd.gradcheck import GradcheckError, gradcheck

from tinygrad_mnist.testing import InconclusiveGradientCheck
from tinygrad_mnist.testing.jax import check_jax
from tinygrad_mnist.testing.torch import check_torch

jax.config.update("jax_enable_x64", True)
torch.set_num_threads(1)
F = torch.nn.functional


class Row(NamedTuple):
    """A function in both frameworks, None where it can't be, and the arrays it is checked at."""

    name: str
    torch: Callable
    jax: Callable | None
    arrays: tuple
    parameters: int = 0  # how many of the last arrays a torch.nn.Module keeps as its own


class Net(torch.nn.Module):
    """A function of x and parameters as a module."""

    def __init__(self, function, parameters):
        super().__init__()
        self.function, self.p = function, torch.nn.ParameterList(parameters)

    def forward(self, *inputs):
        return self.function(*inputs, *self.p)


def everywhere(forward):
    """Return forward(xp, *arrays) in PyTorch and in JAX, which differentiate it."""
    return partial(forward, torch), partial(forward, jnp)


def by_hand(forward, vjp):
    """Return forward(xp, *arrays) in PyTorch and in JAX, with vjp(xp, dy, *arrays) as backward."""

    class ByHand(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            ctx.save_for_backward(*tensors)
            return forward(torch, *tensors)

        @staticmethod
        def backward(ctx, dy):
            return vjp(torch, dy, *ctx.saved_tensors)

    def backward(arrays, dy):
        gradients = vjp(jnp, dy, *arrays)
        return gradients if isinstance(gradients, tuple) else (gradients,)

    function = jax.custom_vjp(partial(forward, jnp))
    function.defvjp(lambda *arrays: (forward(jnp, *arrays), arrays), backward)
    return ByHand.apply, function


# -- the functions, with xp as torch or jax.numpy -------------------------------------------------


def mlp(xp, x, W, b, V, c):
    relu = torch.relu if xp is torch else jax.nn.relu
    return relu(x @ W + b) @ V + c


def box(xp, corners):
    return xp.concatenate([xp.amin(corners, 1), xp.amax(corners, 1)], -1)


def softmax(xp, x):
    e = xp.exp(x - xp.amax(x, -1, keepdims=True))
    return e / xp.sum(e, -1, keepdims=True)


def isrlu(xp, x):
    return x / xp.sqrt(1 + xp.clip(x, None, 0) ** 2)


def isrlu_slope(xp, dy, x):
    return 1 / (1 + xp.clip(x, None, 0) ** 2) ** 1.5


def pooled(x):
    """Return the largest of each window of 2 x 2 in JAX, of x (..., H, W)."""
    window = (1,) * (x.ndim - 2) + (2, 2)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")


def layer_norm(xp, x):
    centred = x - xp.mean(x, -1, keepdims=True)
    return centred / xp.sqrt(xp.mean(centred**2, -1, keepdims=True) + 1e-5)


def dropped_out(x):
    return x * jax.random.bernoulli(jax.random.key(0), 0.5, x.shape) * 2


def convolved(x, W):
    return jax.lax.conv_general_dilated(x, W, (1, 1), "VALID")


class EditsDy(torch.autograd.Function):
    """tanh with a backward that works in grad_output."""

    @staticmethod
    def forward(ctx, x):
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, dy):
        (y,) = ctx.saved_tensors
        return dy.mul_(1 - y**2)


def largest(xp, x):
    return xp.amax(x, -1)


def pays_all(xp, dy, x):
    return dy[..., None] * (x == xp.amax(x, -1, keepdims=True))


def without_one(xp, dy, x, W):
    dW = x.T @ dy
    keeps = np.ones(W.shape)
    keeps[3, 2] = 0
    return dy @ W.T, dW * xp.asarray(keeps)


def slope(xp, x):
    """Return the slope of tanh."""
    return 1 - xp.tanh(x) ** 2


def tanh(xp, x):
    return xp.tanh(x)


# -- the arrays -----------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
normal = RNG.standard_normal
X = normal((4, 5))
ZEROS = np.where(RNG.random((4, 4)) < 0.75, 0, normal((4, 4)))
TIES = np.minimum(normal((4, 6)), -0.2)
BOX = np.array([[[i, j, k] for i in (0.0, 1.0) for j in (0.0, 2.0) for k in (0.0, 3.0)]])
BLANK = np.vstack([np.zeros(5), X])
LAYERS = (normal((5, 6)), np.zeros(6), normal((6, 3)), np.zeros(3))
GENERIC = tuple(p + normal(p.shape) for p in LAYERS)
IMAGES = normal((2, 3, 5, 5))


def single(arrays):
    return tuple(a.astype(np.float32) for a in arrays)


RIGHT = [
    Row("MLP, zero bias, one blank row", *everywhere(mlp), (BLANK, *LAYERS), 4),
    Row("MLP, float32", *everywhere(mlp), single((X, *GENERIC)), 4),
    Row("dropout in training", F.dropout, dropped_out, (X,)),
    Row("relu at 0", torch.relu, jax.nn.relu, (ZEROS,)),
    Row("abs at 0", torch.abs, jnp.abs, (ZEROS,)),
    Row("max with ties", *everywhere(largest), (TIES,)),
    Row("min and max of a box", *everywhere(box), (BOX,)),
    Row("max-pool, all tied", partial(F.max_pool2d, kernel_size=2), pooled, (np.ones((1, 4, 4)),)),
    Row("layer norm", *everywhere(layer_norm), (X,)),
    Row("conv2d", F.conv2d, convolved, (IMAGES, normal((2, 3, 3, 3)))),
    Row("gelu", F.gelu, partial(jax.nn.gelu, approximate=False), (X,)),
    Row("softmax", *everywhere(softmax), (X,)),
    Row("logsumexp", partial(torch.logsumexp, dim=-1), partial(jax.nn.logsumexp, axis=-1), (X,)),
    Row("sort", lambda x: torch.sort(x)[0], jnp.sort, (X,)),
    Row(
        "top three, all tied",
        lambda x: torch.topk(x, 3)[0],
        lambda x: jax.lax.top_k(x, 3)[0],
        (np.ones((8, 8)),),
    ),
    Row("1 / x at 1e-5, float32", *everywhere(lambda xp, x: 1 / x), single((1e-5 * (1 + X**2),))),
    Row(
        "matrix exponential, float32", torch.matrix_exp, jax.scipy.linalg.expm, single((X[:, :4],))
    ),
]
WRONG = [
    Row(
        "one of 980 weight gradients is 0",
        *by_hand(lambda xp, x, W: x @ W, without_one),
        (normal((4, 49)), normal((49, 20))),
        1,
    ),
    Row(
        "softmax with p (1 - p)",
        *by_hand(softmax, lambda xp, dy, x: dy * softmax(xp, x) * (1 - softmax(xp, x))),
        (X,),
    ),
    Row("ISRLU without dy (pytorch#4355)", *by_hand(isrlu, isrlu_slope), (X,)),
    Row("tanh, edits dy in place", EditsDy.apply, None, (X,)),
    Row(
        "relu with slope 7 at 0",
        *by_hand(
            lambda xp, x: xp.clip(x, 0, None),
            lambda xp, dy, x: dy * xp.where(x == 0, 7.0, 1.0 * (x > 0)),
        ),
        (ZEROS,),
    ),
    Row("max that pays every tie", *by_hand(largest, pays_all), (TIES,)),
    Row(
        "tanh, 2 % too much, float32",
        *by_hand(tanh, lambda xp, dy, x: 1.02 * dy * slope(xp, x)),
        single((X,)),
    ),
    Row(
        "tanh, dy clipped at 5",
        *by_hand(tanh, lambda xp, dy, x: xp.clip(dy, -5, 5) * slope(xp, x)),
        (X,),
    ),
    Row(
        "tanh, dy below a tenth of its largest dropped",
        *by_hand(
            tanh,
            lambda xp, dy, x: xp.where(abs(dy) < 0.1 * xp.amax(abs(dy)), 0, dy) * slope(xp, x),
        ),
        (X,),
    ),
    Row(
        "tanh, NaN where dy is 0",
        *by_hand(tanh, lambda xp, dy, x: xp.where(dy == 0, np.nan, dy * slope(xp, x))),
        (X,),
    ),
    Row(
        "gain forgotten, and 1",
        *by_hand(lambda xp, x, g: x * g, lambda xp, dy, x, g: (dy, xp.sum(dy * x, 0))),
        (X, np.ones(5)),
        1,
    ),
    Row(
        "sum with the gradient of a mean",
        *by_hand(
            lambda xp, x: xp.sum(x, 0),
            lambda xp, dy, x: (dy / len(x)) * xp.ones_like(x),
        ),
        (X,),
    ),
    Row(
        "residual without its shortcut",
        *by_hand(
            lambda xp, x, W: x + xp.tanh(x @ W),
            lambda xp, dy, x, W: (dy * slope(xp, x @ W) @ W.T, x.T @ (dy * slope(xp, x @ W))),
        ),
        (X, normal((5, 5))),
        1,
    ),
]
# -- the checkers: each takes a framework's function and arrays, and raises if it is wrong ---------


def check_net(function, arrays, parameters):
    inputs = tensors(arrays)
    kept = len(inputs) - parameters
    check_torch(Net(function, inputs[kept:]) if parameters else function, *inputs[:kept])


def tensors(arrays):
    return [torch.tensor(a, requires_grad=True) for a in arrays]


CHECKERS = {
    "check_torch": lambda row: check_net(row.torch, row.arrays, row.parameters),
    "check_jax": lambda row: check_jax(row.jax, *row.arrays, dtype=row.arrays[0].dtype),
    "gradcheck": lambda row: gradcheck(row.torch, tensors(row.arrays)),
    "gradcheck, fast": lambda row: gradcheck(row.torch, tensors(row.arrays), fast_mode=True),
    "check_grads": lambda row: check_grads(
        row.jax, tuple(map(jnp.asarray, row.arrays)), order=1, modes=("rev",)
    ),
}
OF_JAX = ("check_jax", "check_grads")


def verdict(checker, row):
    """Return what the checker says of the row's function, and its seconds."""
    torch.manual_seed(0)
    start = time.perf_counter()
    try:
        CHECKERS[checker](row)
        said = "right"
    except (AssertionError, GradcheckError):
        said = "wrong"
    except InconclusiveGradientCheck:
        said = "cannot tell"
    return said, time.perf_counter() - start


def main(*words):
    warnings.simplefilter("ignore")  # gradcheck's, of float32
    print("| function | truth |", " | ".join(CHECKERS), "|")
    print("|---|---|" + "---|" * len(CHECKERS))
    was_true = {checker: [] for checker in CHECKERS}
    for row, truth in [*((row, "right") for row in RIGHT), *((row, "wrong") for row in WRONG)]:
        if words and not any(word in row.name for word in words):
            continue
        cells = dict.fromkeys(CHECKERS, "-")
        for checker in CHECKERS:
            if row.jax is not None or checker not in OF_JAX:
                verdict(checker, row)
                said, seconds = verdict(checker, row)
                was_true[checker].append(said == truth)
                cells[checker] = f"{said if said == truth else f'**{said}**'} {seconds:.2f}"
        print(f"| {row.name} | {truth} | {' | '.join(cells.values())} |", flush=True)
    counts = (f"{sum(found)} of {len(found)}" for found in was_true.values())
    print("| true answers | |", " | ".join(counts), "|")


if __name__ == "__main__":
    main(*sys.argv[1:])
