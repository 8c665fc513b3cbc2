"""Train on many devices and hosts through Keras on JAX: python examples/scale_out.py --devices 4.

The convolutional net is ours, and so is what comes back; in between, Keras (extra `keras`) holds a
copy of it on every device and averages their gradients. Images stream from shards on disk. On two
hosts, each with the accelerators that JAX finds there:

    python examples/scale_out.py --hosts 2 --host 0 --coordinator 10.0.0.1:29500
    python examples/scale_out.py --hosts 2 --host 1 --coordinator 10.0.0.1:29500

Both may run on one machine, with --devices. The batch is one, whoever computes it: 1, 4 or 2 x 2
devices take the same steps, to rounding, which grows: `--save` weights, `--compare` another run.
"""

import argparse
import sys
import tempfile

import numpy as np

from tinygrad_mnist import (
    Adam,
    AvgPool2d,
    Conv2d,
    CrossEntropyLoss,
    DataLoader,
    Flatten,
    Linear,
    ReLU,
    Sequential,
    metrics,
    training,
)
from tinygrad_mnist.data import mnist

try:
    import jax

    from tinygrad_mnist.interop.keras import (
        from_keras,
        keras,
        to_keras,
        to_keras_loss,
        to_keras_optimizer,
    )
except ImportError as error:
    sys.exit(f"{error}: run pip install -e '.[keras]'")

SHARDS = 8

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
)
parser.add_argument("--epochs", type=int, default=5, help="passes over the training images")
parser.add_argument("--batch", type=int, default=160, help="images a step, of all hosts together")
parser.add_argument(
    "--devices", type=int, help="virtual devices on this CPU; without, all there are"
)
parser.add_argument("--hosts", type=int, default=1, help="processes that train together")
parser.add_argument("--host", type=int, default=0, help="which of them this one is, from 0")
parser.add_argument("--coordinator", default="127.0.0.1:29500", help="address and port of host 0")
parser.add_argument("--seed", type=int, default=1, help="of weights, masks and order")
parser.add_argument("--save", help="a file for the trained weights (.npz)")
parser.add_argument("--compare", help="such a file of another run, to be compared with")
args = parser.parse_args()
if SHARDS % args.hosts or args.batch % SHARDS:
    parser.error(f"expected --hosts to divide {SHARDS}, and --batch to be a multiple of {SHARDS}")

# before anything runs on JAX: how many devices there are, and who else trains
if args.devices:
    jax.config.update("jax_num_cpu_devices", args.devices)
if args.hosts > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    keras.distribution.initialize(args.coordinator, args.hosts, args.host)
keras.utils.set_random_seed(args.seed)
devices = keras.distribution.list_devices()
if args.batch % len(devices):
    parser.error(f"expected --batch to be a multiple of the {len(devices)} devices")
# every host brings its own part of a batch
data_parallel = keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)
keras.distribution.set_distribution(data_parallel)

rng = np.random.default_rng(args.seed)
model = Sequential(
    Conv2d(1, 8, 5, stride=2, rng=rng, input_grad=False),
    ReLU(),
    Conv2d(8, 16, 5, rng=rng),
    ReLU(),
    AvgPool2d(),
    Flatten(),
    Linear(16 * 4 * 4, 10, rng=rng),
)
optimizer = Adam(model.parameters(), lr=0.003)
keras_model = to_keras(model, sample_shape=(28, 28, 1))
keras_model.compile(to_keras_optimizer(optimizer), to_keras_loss(CrossEntropyLoss()))

(x_train, y_train), (x_test, y_test) = mnist.load_data()


def scaled(images):
    """Return images (N, 28, 28, 1), from 0 for paper to 1 for ink."""
    return images[..., None] / np.float32(255)


def mapped(path, array):
    """Return the array as a file on disk, read as it is needed."""
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def batches(loaders):
    """Yield this host's part of each batch: a few images of each of its shards."""
    while True:  # Keras counts the steps of an epoch
        for parts in zip(*loaders, strict=True):
            images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            yield scaled(images), labels


with tempfile.TemporaryDirectory() as folder:
    loaders = []
    for i in np.split(np.arange(SHARDS), args.hosts)[args.host]:  # the shards of this host
        images = mapped(f"{folder}/images{i}.npy", x_train[i::SHARDS])
        labels = mapped(f"{folder}/labels{i}.npy", y_train[i::SHARDS])
        rows, order = args.batch // SHARDS, np.random.default_rng([args.seed, i])
        loaders.append(DataLoader(images, labels, rows, shuffle=True, drop_last=True, rng=order))
    keras_model.fit(
        batches(loaders),
        steps_per_epoch=len(loaders[0]),
        epochs=args.epochs,
        shuffle=False,  # the loaders do
        verbose=2 if args.host == 0 else 0,
    )

model = from_keras(keras_model)
accuracy = metrics.accuracy(training.predict(model, scaled(x_test)), y_test)
print(f"{len(devices)} devices on {args.hosts} hosts | Test-Acc: {accuracy:.4f}")
weights = model.state_dict()
if args.compare:
    others = np.load(args.compare)
    largest = max(abs(weights[name] - others[name]).max() for name in weights)
    print(f"largest difference of a weight: {largest:.1e}")
if args.save:
    np.savez(args.save, **weights)
