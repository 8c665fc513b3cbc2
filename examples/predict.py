"""Recognise handwritten digits in pictures: python examples/predict.py MODEL.npz IMAGE...

The model is one that examples/train.py wrote. A picture shows one digit, at any size, dark on light
or light on dark. It is converted to the form of MNIST: light ink, the digit scaled to fit 20 x 20
pixels, its centre of mass in the middle of 28 x 28. A picture of 28 x 28 is only inverted, if its
paper is light.
"""

import argparse
import sys

import numpy as np
from network import network
from scipy.ndimage import center_of_mass

from tinygrad_mnist import Softmax
from tinygrad_mnist.training import checkpoint

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


def as_mnist(grey):
    """Return the digit in the form of MNIST: (28, 28), from 0 for paper to 1 for ink."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ink = np.abs(grey - np.median(border))  # what differs from the paper, lighter or darker
    if ink.max() < 0.1:
        raise ValueError("it shows nothing but paper")
    if grey.shape == (28, 28):
        return (ink / ink.max()).astype(np.float32)
    rows, columns = np.nonzero(ink > 0.25 * ink.max())
    digit = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = (max(1, round(20 * n / max(digit.shape))) for n in digit.shape)
    small = np.asarray(Image.fromarray(digit.astype(np.float32)).resize((width, height)))
    small = np.clip(small / small.max(), 0, 1)
    y, x = center_of_mass(small)
    top = int(np.clip(round(13.5 - y), 0, 28 - height))
    left = int(np.clip(round(13.5 - x), 0, 28 - width))
    image = np.zeros((28, 28), np.float32)
    image[top : top + height, left : left + width] = small
    return image


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
    meta = checkpoint.load(args.model)
    model = network(meta["channels"], meta["hidden"], meta["dropout"]).eval()
    checkpoint.load(args.model, model)
except (OSError, checkpoint.CheckpointError) as error:
    sys.exit(str(error))
except KeyError as error:
    sys.exit(f"{args.model} does not say {error}: is it the model.npz of a run?")

unreadable = 0
for path in args.images:
    try:
        image = as_mnist(read_grey(path))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        unreadable += 1
        continue
    probability = Softmax()(model(image[..., None]))
    ranked = [f"{digit} ({probability[digit]:.0%})" for digit in np.argsort(-probability)[:3]]
    print(f"{path}: {ranked[0]}, then {' and '.join(ranked[1:])}")
    print(as_text(image))
sys.exit(unreadable > 0)
