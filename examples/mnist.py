"""Learn to read handwritten digits: python examples/mnist.py."""

import numpy as np

from tinygrad_mnist import Adam, CrossEntropyLoss, DataLoader, Flatten, Linear, ReLU, Sequential
from tinygrad_mnist.data import mnist
from tinygrad_mnist.data.transforms import random_shift
from tinygrad_mnist.metrics import accuracy
from tinygrad_mnist.optim.schedules import cosine_decay

(images, labels), (test_images, test_labels) = mnist.load_data()
x_train = images[..., None] / np.float32(255)  # (N, 28, 28, 1), from 0 for paper to 1 for ink
x_test = test_images[..., None] / np.float32(255)

model = Sequential(Flatten(), Linear(784, 512, rng=0), ReLU(), Linear(512, 10, rng=1))
loss = CrossEntropyLoss()
optimizer = Adam(model.parameters())
rate = cosine_decay(0.003, steps=10)
batches = DataLoader(x_train, labels, 64, shuffle=True, rng=2, transform=random_shift(1))

for epoch in range(10):
    optimizer.lr = rate(epoch)
    for x, t in batches:
        loss(model(x), t)
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
    print(f"epoch {epoch + 1:2}  test accuracy {accuracy(model(x_test), test_labels):.4f}")
