"""The one sentence of every refusal: `Owner: expected <contract>, got <value>`.

`owner` is the object that refuses, or the name of the function that does.
"""

import numbers
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

Refused = TypeVar("Refused", bound=Exception)

# What helps most, as a note on the error: by contract, or by contract and value, with … for what
# differs. The first that fits is taken.
REMEDIES = {
    "x to be an array of real numbers, got a tuple…": "A DataLoader yields pairs: "
    "`for x, t in loader`.",
    "x to be an array of real numbers, got None": "A `forward` ends without `return`.",
    "y to be an array of real numbers, got None": "A `forward` ends without `return`.",
    "pred to be an array of real numbers, got None": "A `forward` ends without `return`.",
    "dy to be an array of real numbers, got None": "A `backward` ends without `return`.",
    "dy to be an array of real numbers": "Pass the gradient: `model.backward(loss.backward())`.",
    "dy of shape …, got ()": "Pass the gradient, not the value: `model.backward(loss.backward())`.",
    "… to be an array of real numbers, got a masked array": "Fill it first: `a.filled(0)`.",
    "weight to be an array of real numbers": "Pass the array of a Linear: `model[0].weight.data`.",
    "target… to be an array of real numbers, got an array of …": "Number the names of classes: "
    "`names, labels = np.unique(words, return_inverse=True)`.",
    "class_weight to be an array of real numbers": "Give a list, one weight for each class, in the "
    "order of the labels.",
    "… to be an array of real numbers": "Pass numbers in one regular shape; of a table with words, "
    "choose the columns of numbers: `df[names].to_numpy(float)`.",
    "bias to be a bool, got '…'": "An activation is a layer: "
    "`Sequential(Linear(784, 10), ReLU())`.",
    "p in [0, 1)": "p is the probability of zeroing: `Dropout(0.2)` keeps 80 %.",
    "lr in [0, inf), got a …": "A schedule goes into a callback: "
    "`fit(..., callbacks=[LearningRate(schedule)])`.",
    "a forward before backward": "Call `model(x)` before `model.backward(dy)`, and "
    "`loss(pred, t)` before `loss.backward()`.",
    "x of shape (..., H, W, …)": "Images have their channels last: grey ones are `x[..., None]`, "
    "those with the channels first `np.moveaxis(x, -3, -1)`, flat ones "
    "`x.reshape(-1, 28, 28, 1)`.",
    "x of shape (..., …)": "The layer's first argument is the size of the last axis of x. "
    "`x.reshape(len(x), -1)` flattens images, and so does a Flatten() in a model, where grey ones "
    "are `x[..., None]`.",
    "layer … to be a Module": 'Pass Module objects: `ReLU()`, not `ReLU` or "relu"; '
    "`Sequential(*layers)`, not `Sequential(layers)`.",
    "each Module once": "Make one for each place: `Sequential(a, ReLU(), b, ReLU())`.",
    "x with more than one value of a feature, in training": "If the last batch of an epoch is one "
    "sample, leave it out: `DataLoader(..., drop_last=True)`. To predict, call `model.eval()` "
    "first.",
    "a state dict": "Of a file: `model.load_state_dict(dict(np.load(path)))`.",
    "target of shape …, or labels of shape (), got …": "Scores come first: `loss(model(x), t)`. "
    "A single sample has a single label: `t[0]`.",
    "target of shape …, or labels of shape …, got (…, 1)": "Make labels (N, 1) labels (N,): "
    "`t[:, 0]`.",
    "target of shape …, or labels of shape …": "Integer labels want the shape of pred without its "
    "last axis, probabilities the shape of pred: for ten outputs, `one_hot(labels, 10)`.",
    "target of shape (…, 1), got …": "A target of a single output is `(N, 1)`: `t[:, None]`.",
    "target of shape …": "Integer labels want CrossEntropyLoss, or `one_hot`. A target of a single "
    "output is `(N, 1)`: `t[:, None]`.",
    "target in [0, 1]": "Of labels -1 and 1, `(t + 1) / 2` makes 0 and 1.",
    "target to have rows that are one-hot, or probabilities that sum to 1, got an array of shape "
    "(…,) and …": "Labels go with scores, which have an axis of classes: `model(x)`, not its "
    "`argmax`.",
    "target to have rows that are one-hot, or probabilities that sum to 1": "In a regression, leave"
    " accuracy out: `metrics=()`.",
    "labels to be integers": "Convert whole numbers: `labels.astype(int)`. Probabilities, and "
    "one-hot rows, have a last axis of classes.",
    "labels in [0, …)": "Labels count from 0, and the last layer has an output for each class. "
    "For labels 1 to 10, subtract 1; a -1 is often a missing label.",
    "an iterable of Parameters": "Give `model.parameters()`.",
    "params to be Parameters": "Give `model.parameters()`.",
    "at least one Parameter": "A layer of your own keeps what it trains in a Parameter: "
    "`self.W = Parameter(...)`.",
    "images of dtype uint8": "`preprocess` divides by 255 itself: pass the raw bytes.",
    "inputs of … axes or more for this transform": "Images are channels last: grey ones "
    "`images[..., None]`. Flat rows: `x.reshape(-1, 28, 28, 1)`.",
    "a loss to call, with a backward": "Pass an object, not the class: `MSELoss()`.",
    "logits for …": "The loss computes softmax or sigmoid itself: leave that layer out, and apply "
    "it to predictions, `Softmax()(model(x))`.",
    "an Optimizer": "Pass an object, not the class: `SGD(model.parameters(), lr=0.1)`.",
    "an optimizer of the model's parameters": "In a notebook, run the cell of the optimizer again "
    "after that of the model.",
    "a DataLoader, or an iterable of pairs": "Of arrays, `DataLoader(x, t, batch_size=32)` makes "
    "batches.",
    "a loader with at least one sample": "A generator is used up after one epoch: give a "
    "DataLoader or a list. With `drop_last`, at least one batch must be whole.",
    "a DataLoader to write checkpoints of": "Only a DataLoader can say where in its data it is. "
    "Leave `checkpoint` out for other iterables.",
    "layers that load_model can make again, got … makes another …": "If forward keeps it, say so "
    "on the class, `_x = None`, and set `self._x`.",
    "a finite loss": "Divide the learning rate by 10. If that does not help, look for NaN in the "
    "data: `np.isfinite(x).all()`.",
    "finite parameters": "Divide the learning rate by 10.",
    "metrics to be a list of names and functions": 'Pass a list, even of one: `["accuracy"]`.',
    "callbacks to be a list of Callbacks": "Pass objects, in a list even of one: "
    "`[EarlyStopping()]`.",
    "monitor to be a string": "It is the name of a number. The patience has a name: "
    "`EarlyStopping(patience=3)`.",
    "monitor to be one of …": 'Names with "val_" need `validation` in `fit`.',
    "… to be a file, in a folder that is there": "Make the folder first, and give a file in it.",
    "pred of shape (..., classes) with two classes or more": "One logit for yes or no wants "
    "BCEWithLogitsLoss, and `np.mean((pred > 0) == target)` is its accuracy. In a regression, "
    "leave accuracy out.",
    "pred to hold scores, not predicted labels": "Scores come first: `accuracy(model(x), t)`. Of "
    "predicted labels, pass the scores that were the argument of `argmax`, or "
    "`one_hot(predicted, num_classes)`.",
    "numbers, strings, arrays, and lists, tuples and dicts of them at …": "Convert it: names in an "
    "array by `names.tolist()`, a path by `str(path)`.",
    "sample_shape[…] to be an integer >= 1, got None": "A sample has no axis of the batch: "
    "`(784,)`, not `(None, 784)`.",
    "sample_shape to be a tuple of integers": "One number, too, is a tuple: `(784,)`.",
    "hidden to be a tuple of integers": "One hidden layer is `(100,)`, none is `()`.",
    "meta that JSON can hold": "Convert arrays to lists, `classes.tolist()`, and leave NaN out.",
    "… to be a safetensors file that fits, got …instead of…": "Arrays as PyTorch has them want "
    '`layout="torch"`, to write and to read.',
    "samples x of … axes or more": "`predict` takes samples on the first axis: one is `x[None]`.",
    "history to be a History": "Give what `fit` returned.",
    "a Module, got a NetClassifier": "The network of an estimator is its `model_`.",
    "a Module, got a NetRegressor": "The network of an estimator is its `model_`.",
    "a Module, got '…'": "Of files, the path comes first: `save_model(path, model)`.",
    "a Conv2d": "Give the layer: `model[0]`, not the model, nor its weight.",
}

_FRAMEWORKS = ("torch", "keras", "jax", "tensorflow")  # which have names like ours


def expected(owner: object, contract: str, value: object) -> str:
    """Return the message of a refusal."""
    name = owner if isinstance(owner, str) else type(owner).__name__
    return f"{name}: expected {contract}, got {value}"


def refusal(kind: type[Refused], owner: object, contract: str, got: object) -> Refused:
    """Return an error of this kind, with a note of what helps where the table has one."""
    error = kind(expected(owner, contract, got))
    remedy = remedy_for(f"{contract}, got {got}")
    if remedy:
        error.add_note(remedy)
    return error


def remedy_for(told: str) -> str | None:
    """Return what helps where an error says "<contract>, got <value>", if the table has it."""
    for pattern, remedy in REMEDIES.items():
        if re.match(re.escape(pattern).replace("…", ".*") + "(, got |$)", told, re.DOTALL):
            return remedy
    return None


def type_error(owner: object, contract: str, value: object) -> TypeError:
    """Return a refusal of a value for its type."""
    return refusal(TypeError, owner, contract, described(value))


def value_error(owner: object, contract: str, value: object) -> ValueError:
    """Return a refusal of a value."""
    return refusal(ValueError, owner, contract, described(value))


def described(value: object) -> str:
    """Return how a message shows a value: numbers and short strings as they are, else its kind."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, int) and abs(value) >= 10**80:
        return "an integer of more than 80 digits"
    if value is None or isinstance(value, (numbers.Number, np.generic, str)):
        return repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
    if isinstance(value, tuple) and all(isinstance(n, int) for n in value):
        return str(value)  # a shape
    if isinstance(value, np.ndarray):
        kind = "a masked array" if np.ma.isMA(value) else "an array"
        return f"{kind} of shape {value.shape} and dtype {value.dtype}"
    name, library = type(value).__name__, type(value).__module__.partition(".")[0]
    spelt_out = name[:2].isupper()  # an SGD, a GELU
    article = "an" if name[0] in ("AEFHILMNORSX" if spelt_out else "AEIOUaeio") else "a"
    return f"{article} {name}" + (f" of {library}" if library in _FRAMEWORKS else "")


@contextmanager
def refusing(owner: object, contract: str, kind: type[Exception] = ValueError) -> Iterator[None]:
    """Turn whatever goes wrong in a `with` block into one refusal of this kind.

    What the machine lacks is no fault of what was read: a MemoryError passes, and so does an
    OSError of the system, which has an errno, unless the kind is an OSError itself.
    """
    try:
        yield
    except Exception as error:  # foreign code raises anything: zipfile, zlib, Keras each their own
        of_system = isinstance(error, OSError) and error.errno is not None
        if isinstance(error, MemoryError) or (of_system and not issubclass(kind, OSError)):
            raise
        found = str(error) or type(error).__name__
        raise refusal(kind, owner, contract, found) from error


def locate(error: Exception, container: object, name: object, layer: object) -> None:
    """Lead the message of a layer's refusal by the layer's path in its containers.

    "Linear: expected ..." from layer 4 becomes "Sequential, layer 4: Linear: expected ...", and in
    a Sequential around that one "Sequential, layer 0.4: Linear: expected ...". Other errors
    stay as they are.
    """
    kind, message = type(layer).__name__, str(error)
    where = f"{type(container).__name__}, layer {name}"
    if message.startswith(f"{kind}, layer "):
        error.args = (f"{where}.{message.removeprefix(f'{kind}, layer ')}",)
    elif message.startswith(f"{kind}: "):
        error.args = (f"{where}: {message}",)
    elif re.match(r"(\w+(, layer [\w.]+)?: )+expected ", message):  # of one inside the layer
        error.args = (f"{where}: {kind}: {message}",)
