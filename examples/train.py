"""Train an MNIST classifier with all the options: python examples/train.py.

The network has hidden layers; with --channels 8 16, two convolutions come before them. A twentieth
of the training images is held back to pick the best epoch; the test images are used once, at the
end. Writes the model, the history and pictures to --out. With --resume, an interrupted run goes on
where it stopped, and ends with the same bits as one that was never interrupted. examples/predict.py
reads pictures with the model.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from tinygrad_mnist import (
    SGD,
    Conv2d,
    CrossEntropyLoss,
    DataLoader,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
    Softmax,
    plots,
    summary,
)
from tinygrad_mnist.data import mnist
from tinygrad_mnist.data.transforms import random_shift
from tinygrad_mnist.metrics import accuracy, confusion_matrix, recall
from tinygrad_mnist.optim.schedules import cosine_decay, step_decay, warm_up
from tinygrad_mnist.training import BestCheckpoint, LearningRate, checkpoint, fit, predict


def network(channels, hidden, dropout, rng):
    """Return a model of images (28, 28, 1): convolutions, hidden layers, a score for each digit."""
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


parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
)
add = parser.add_argument
add("--data", default="bundled", help="bundled, keras, keras-fashion, or a path to files")
add("--channels", type=int, nargs="*", default=[], help="of each convolution of 5 x 5")
add("--hidden", type=int, nargs="*", default=[512], help="units of each hidden layer")
add("--dropout", type=float, default=0.2, help="fraction of hidden units dropped in training")
add("--shift", type=int, default=1, help="pixels that images are moved by in training, at most")
add("--batch-size", type=int, default=32)
add("--lr", type=float, default=0.03, help="learning rate after the warm-up")
add("--momentum", type=float, default=0.9)
add("--weight-decay", type=float, default=3e-4)
add("--schedule", choices=["cosine", "step", "constant"], default="cosine")
add("--epochs", type=int, default=30, help="the first of them is the warm-up")
add("--compiled", action="store_true", help="train compiled (needs numba)")
add("--seed", type=int, default=1, help="of weights, masks and the order of images")
add("--out", type=Path, default=Path("runs/mnist"), help="folder to write to")
add("--resume", action="store_true", help="go on with the run in --out, with its settings")
args = parser.parse_args()

settings = args.out / "settings.json"
if args.resume:
    if not settings.exists():
        sys.exit(f"{args.out} holds no run to go on with")
    parser.set_defaults(**json.loads(settings.read_text()))
    args = parser.parse_args(["--resume", "--out", str(args.out)])
    if parser.parse_args() != args:
        sys.exit(
            f"{args.out} goes on with its own settings, in {settings}: --resume takes no others"
        )
elif (args.out / "run.npz").exists():
    sys.exit(f"{args.out} holds a run: go on with it (--resume), or choose another --out")

try:
    (images, labels), (test_images, test_labels) = mnist.load_data(args.data)
except (OSError, ValueError, ImportError) as error:  # no file, no images of 28 x 28, no Keras
    parser.error(str(error))
x = images[..., None] / np.float32(255)  # (N, 28, 28, 1), from 0 for paper to 1 for ink
x_test = test_images[..., None] / np.float32(255)
rng = np.random.default_rng(args.seed)
held_back, rest = np.split(rng.permutation(len(x)), [len(x) // 20])
train = DataLoader(
    x[rest],
    labels[rest],
    args.batch_size,
    shuffle=True,
    drop_last=True,
    rng=rng,
    transform=random_shift(args.shift),
)

model = network(args.channels, args.hidden, args.dropout, rng)
loss = CrossEntropyLoss()
optimizer = SGD(
    model.parameters(), lr=args.lr, momentum=args.momentum, weight_decay=args.weight_decay
)
schedule = {
    "cosine": cosine_decay(args.lr, steps=args.epochs),
    "step": step_decay(args.lr, every=max(1, args.epochs // 3)),
    "constant": lambda epoch: args.lr,
}[args.schedule]
best = args.out / "best.npz"

args.out.mkdir(parents=True, exist_ok=True)
chosen = {k: v for k, v in vars(args).items() if k not in ("out", "resume")}
settings.write_text(json.dumps(chosen, indent=1) + "\n")
print(summary(model, x.shape[1:]))
try:
    history = fit(
        model,
        loss,
        optimizer,
        train,
        epochs=args.epochs,
        validation=(x[held_back], labels[held_back]),
        callbacks=[
            LearningRate(warm_up(1, schedule)),
            BestCheckpoint(best),
        ],
        checkpoint=args.out / "run.npz",
        resume=args.resume,
        compiled=args.compiled,
    )
except KeyboardInterrupt:
    sys.exit(f"interrupted: go on with --out {args.out} --resume")
except FloatingPointError as error:
    sys.exit(f"{error}: try a smaller --lr, and another --out if this one holds a run")

epoch = checkpoint.load(best, model)["epoch"]
checkpoint.save_model(args.out / "model.npz", model, classes=[*range(10)], epoch=epoch)
scores = predict(model, x_test)
right = accuracy(scores, test_labels)
print(f"best epoch {epoch} of {len(history.records)}: test accuracy {right:.4f}")
for digit, found in enumerate(recall(scores, test_labels)):
    print(f"  of the {digit}s {found:.1%} are recognised")

history.to_json(args.out / "history.json")
history.to_csv(args.out / "history.csv")
first = model[0 if args.channels else 1]  # a Conv2d, or the Linear after Flatten
pictures = {
    "curves": plots.learning_curves(history),
    "weights": plots.filters(first)
    if args.channels
    else plots.first_layer_weights(first.weight.data),
    "confusion": plots.confusion_matrix(confusion_matrix(scores, test_labels)),
    "mistakes": plots.worst_mistakes(test_images, Softmax()(scores), test_labels),
}
for name, picture in pictures.items():
    picture.get_figure().savefig(args.out / f"{name}.png", dpi=120)
print(f"{args.out} now has: {', '.join(sorted(path.name for path in args.out.iterdir()))}")
