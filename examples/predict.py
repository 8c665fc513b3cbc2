"""Read handwritten digits in pictures: python examples/predict.py MODEL.npz IMAGE...

The model is one that examples/train.py wrote. A picture shows one line of digits, at any size, dark
on light or light on dark. Each digit is converted to the form of MNIST: light ink, scaled to fit
20 x 20 pixels, its centre of mass in the middle of 28 x 28. Where the model, or the shape, gives
reason to doubt, it says so first.
"""

import argparse
import sys

import numpy as np
from scipy.ndimage import find_objects, label

from tinygrad_mnist import Softmax
from tinygrad_mnist.data.mnist import size_normalized
from tinygrad_mnist.training import checkpoint, predict

try:
    from PIL import Image
except ImportError as error:
    sys.exit(f"{error}: run pip install -e '.[plot]'")

SHADES = np.array(list(" .:-=+*#%@"))  # from paper to ink


def read_grey(path):
    """Return the picture in shades of grey, 0 to 1; what is transparent is white."""
    picture = Image.open(path)
    if picture.mode.startswith(("I", "F")):  # more than 8 bits a pixel
        grey = np.asarray(picture, float)
        return (grey - grey.min()) / (np.ptp(grey) or 1)
    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("L")) / 255


def ink_of(grey):
    """Return what differs from the paper, lighter or darker, from 0 to 1."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ink = np.abs(grey - np.median(border))
    if ink.max() < 0.1:
        raise ValueError("it shows nothing but paper")
    return ink / ink.max()


def digits_in(ink):
    """Return the parts of a picture that are joined, or above one another, from left to right."""
    numbers, _ = label(ink > 0.25, np.ones((3, 3)))  # each joined part has a number
    boxes = list(enumerate(find_objects(numbers), start=1))
    size = max(max(np.shape(ink[box])) for _, box in boxes)
    groups = []  # of numbers, and the columns that they fill
    for number, box in sorted(boxes, key=lambda found: found[1][1].start):
        left, right = box[1].start, box[1].stop
        if max(np.shape(ink[box])) < size / 5:  # a speck
            continue
        if groups and groups[-1][2] - left > (right - left) / 2:
            numbers_before, start, stop = groups.pop()
            groups.append(([*numbers_before, number], start, max(stop, right)))
        else:
            groups.append(([number], left, right))
    return [cut_out(np.where(np.isin(numbers, group), ink, 0)) for group, _, _ in groups]


def cut_out(ink):
    rows, columns = np.nonzero(ink)
    return ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def doubt(digit, probability):
    """Return why a reading may be wrong, or nothing."""
    height, width = digit.shape
    if 2 * width > height and np.mean(digit > 0.25) > 0.7:  # no digit of MNIST is as black
        return "a blot, no digit? "
    if width > 1.45 * height:  # one in a hundred of MNIST's is as wide
        return "several digits that touch? "
    if probability.max() < 0.8:
        return "not sure: "
    return ""


def as_text(image):
    """Return the image in 14 lines: a character is two pixels high."""
    pairs = image.reshape(14, 2, 28).mean(axis=1)
    shades = SHADES[np.rint(pairs * (len(SHADES) - 1)).astype(int)]
    return "\n".join("".join(line).rstrip() for line in shades)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", metavar="MODEL.npz")
parser.add_argument("images", metavar="IMAGE", nargs="+")
args = parser.parse_args()

try:
    model, meta = checkpoint.load_model(args.model)
    names = meta["classes"]
except (OSError, checkpoint.CheckpointError) as error:
    sys.exit(str(error))
except KeyError as error:
    sys.exit(f"{args.model} does not say {error}: is it the model.npz of a run?")

unreadable = 0
for path in args.images:
    try:
        ink = ink_of(read_grey(path))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        unreadable += 1
        continue
    digits = digits_in(ink)
    images = np.array([size_normalized(digit) for digit in digits])
    for i, p in enumerate(Softmax()(predict(model, images[..., None]))):
        place = f", digit {i + 1} of {len(digits)}" if len(digits) > 1 else ""
        ranked = [f"{names[best]} ({p[best]:.0%})" for best in np.argsort(-p)[:3]]
        print(f"{path}{place}: {doubt(digits[i], p)}{ranked[0]}, then {' and '.join(ranked[1:])}")
        print(as_text(images[i]))
sys.exit(unreadable > 0)
