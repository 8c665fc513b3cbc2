"""Train on MNIST with dropout, one image at a time: python examples/notebook/mnist_dropout.py.

The second script of the notebook, with right gradients. It prints a row every 10 epochs:
training numbers from the pass that trained, test numbers from the test set after it.
"""

import argparse

import numpy as np
from tqdm import tqdm, trange

from tinygrad_mnist import SGD, DataLoader, Dropout, Linear, MSELoss, ReLU, Sequential, metrics
from tinygrad_mnist.data import mnist
from tinygrad_mnist.init import uniform

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
)
parser.add_argument("--epochs", type=int, default=120, help="passes over the training images")
parser.add_argument(
    "--data", default="bundled", help="bundled, keras, keras-fashion, or a path to files"
)
parser.add_argument("--seed", type=int, default=1, help="of weights and masks")
parser.add_argument("--compiled", action="store_true", help="train compiled (needs numba)")
args = parser.parse_args()

try:
    (x_train, y_train), (x_test, y_test) = mnist.load_data(args.data)
except (OSError, ValueError, ImportError) as error:  # no file, no images of 28 x 28, no Keras
    parser.error(str(error))
x_train, t_train = mnist.preprocess(x_train, y_train)
x_test, t_test = mnist.preprocess(x_test, y_test)

rng = np.random.default_rng(args.seed)
model = Sequential(
    Linear(784, 100, bias=False, init=uniform(-0.1, 0.1), rng=rng, input_grad=False),
    ReLU(),
    Dropout(0.5, rng=rng),
    Linear(100, 10, bias=False, init=uniform(-0.1, 0.1), rng=rng),
)
loss = MSELoss("batchmean")
optimizer = SGD(model.parameters(), lr=0.005 / 2)  # the notebook steps along y - t, not 2 (y - t)
samples = DataLoader(x_train, t_train, batch_size=None)
if args.compiled:
    from tinygrad_mnist.compiled import compile_sgd

    train = compile_sgd(model, loss, optimizer)

for epoch in trange(1, args.epochs + 1, unit="epoch", disable=None):
    model.train()
    if args.compiled:
        error, accuracy = train(x_train, t_train)
    else:
        error, accuracy = 0.0, 0.0
        for x, t in samples:
            y = model(x)
            error += loss(y, t) / len(samples)
            accuracy += (y.argmax() == t.argmax()) / len(samples)
            optimizer.zero_grad()
            model.backward(loss.backward())
            optimizer.step()

    if epoch % 10 == 1 or epoch == args.epochs:
        model.eval()
        y = model(x_test)
        tqdm.write(
            f"Epoch {epoch} | Train-Err: {error:.4f} "
            f"| Train-Acc: {accuracy:.4f} | Test-Err: {loss(y, t_test):.4f} "
            f"| Test-Acc: {metrics.accuracy(y, y_test):.4f}"
        )
