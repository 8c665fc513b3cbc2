"""What a model makes of a drawing: layer by layer, and which pixels speak for what it reads."""

import copy
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist._outline import as_written
from tinygrad_mnist.data.mnist import size_normalized
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Sequential, Softmax
from tinygrad_mnist.training.checkpoint import load_model

LARGEST = 280  # a drawing has so many pixels a side, or fewer


def opened(path: str | os.PathLike[str]) -> Module:
    """Return the model of a file, or refuse one that reads no digits."""
    model: Module = load_model(path)[0]
    contract = f"{path} to make ten scores of images (28, 28, 1), or of rows of 784 pixels"
    with check.refusing("page", contract):
        scores = reading(model, np.zeros((28, 28), np.float32))["scores"]
    if len(scores) != 10:
        raise ValueError(check.expected("page", contract, f"{len(scores)} scores"))
    return model


def image_of(pixels: Any) -> FloatArray:
    """Return the image (28, 28), from 0 to 1, of n * n pixels from 0 to 255.

    28 * 28 pixels are taken as they are; a larger drawing gets the form of MNIST.
    """
    n = math.isqrt(len(pixels)) if isinstance(pixels, list) else 0
    if not 28 <= n <= LARGEST or n * n != len(pixels):
        contract = f"pixels to be a list of n * n, for n from 28 to {LARGEST}"
        raise check.value_error("page", contract, len(pixels) if n else pixels)
    if set(map(type, pixels)) != {int} or not 0 <= min(pixels) <= max(pixels) <= 255:
        raise check.value_error("page", "pixels to be integers from 0 to 255", pixels)
    ink = np.frombuffer(bytes(pixels), np.uint8).reshape(n, n) / np.float32(255)
    return size_normalized(ink) if n > 28 and ink.any() else ink[:28, :28]


def reading(
    model: Module, image: FloatArray, scores_of: Callable[[Any], Any] | None = None
) -> dict[str, Any]:
    """Return what a model reads, its scores, the y of each layer, and what speaks for the digit.

    The last is x * dL/dx, where L is the model's output for that digit. `scores_of` makes scores of
    the outputs: a Softmax, unless it is given or the model has one. All of it happens on a copy: a
    forward would take the place of the one that a training keeps, and a backward would add to its
    gradients.
    """
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if "input_grad" in vars(module):
            module.input_grad = True
    x = y = input_of(model, image)
    leaves = list(Sequential(model).leaves())
    layers = []
    with np.errstate(all="ignore"):  # of a model that diverged
        for path, layer in leaves:
            y = layer(y)
            name = path.removeprefix("0.")
            layers.append(
                {"path": name, "name": as_written(layer), "shape": y.shape[1:], "values": scaled(y)}
            )
        if scores_of is None:
            scores_of = np.array if isinstance(layer, Softmax) else Softmax()
        scores = np.nan_to_num(scores_of(y)).ravel()
        dx = np.zeros_like(y)
        dx.flat[y.argmax()] = 1
        for _, layer in reversed(leaves):
            dx = layer.backward(dx)
        speaks = scaled(x * dx)
    return {
        "prediction": digit_of(image, y),
        "scores": scores.tolist() if image.any() else [0.0] * len(scores),
        "image": np.rint(255 * image).astype(int).ravel().tolist(),
        "layers": layers,
        "speaks": speaks,
    }


def prediction(model: Module, image: FloatArray) -> int | None:
    """Return the digit that a model reads: a forward is enough, whose backward may be wrong."""
    model = copy.deepcopy(model).eval()
    with np.errstate(all="ignore"):
        return digit_of(image, model(input_of(model, image)))


def input_of(model: Module, image: FloatArray) -> FloatArray:
    """Return an image as a batch of one, in the shape that the model takes."""
    return image.reshape((1, 28, 28, 1) if model.sample_axes == 3 else (1, 784))


def digit_of(image: FloatArray, y: FloatArray) -> int | None:
    """Return the digit of the largest output, or None: nothing was drawn, or the model diverged."""
    return int(y.argmax()) if image.any() and np.isfinite(y).all() else None


def scaled(values: FloatArray) -> list[int]:
    """Return the values as integers from -100 to 100, which is the largest of them."""
    largest = abs(values).max()
    parts = 100 * values / largest if 0 < largest < np.inf else np.zeros(values.shape)
    return np.rint(parts).astype(int).ravel().tolist()
