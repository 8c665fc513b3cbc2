"""The smallest complete training loop, which learns XOR: python examples/xor.py."""

import numpy as np

from tinygrad_mnist import SGD, Linear, MSELoss, ReLU, Sequential

x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
t = np.array([[0], [1], [1], [0]])

rng = np.random.default_rng(0)
model = Sequential(Linear(2, 8, rng=rng), ReLU(), Linear(8, 1, rng=rng))
loss = MSELoss()
optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)

for step in range(1, 201):
    error = loss(model(x), t)
    optimizer.zero_grad()
    model.backward(loss.backward())
    optimizer.step()
    if step % 50 == 0:
        print(f"step {step:3}  error {error:.6f}")

for (a, b), y in zip(x, model(x), strict=True):
    print(f"{a} xor {b} = {y.item():.3f}")
