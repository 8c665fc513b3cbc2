"""The network that examples/train.py trains and examples/predict.py loads."""

from tinygrad_mnist import Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU, Sequential


def network(channels, hidden, dropout, rng=None):
    """Return a model of images (28, 28, 1): convolutions, hidden layers, a score for each digit.

    channels and hidden hold a number for each layer, as many of them as you like, or none.
    """
    layers, side, features = [], 28, 1
    for units in channels:
        layers += [Conv2d(features, units, 5, rng=rng, input_grad=bool(layers)), ReLU()]
        layers += [MaxPool2d()]
        side, features = (side - 4) // 2, units
    layers, width = [*layers, Flatten()], side * side * features
    for units in hidden:
        layers += [Linear(width, units, rng=rng), ReLU(), Dropout(dropout, rng=rng)]
        width = units
    return Sequential(*layers, Linear(width, 10, rng=rng))
