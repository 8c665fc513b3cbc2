"""Write a custom layer and train it in a model: python examples/custom_layer.py.

A Module needs `forward` and `backward`; the Parameters that it holds are found. This one is a ReLU
that learns a slope a for negative inputs (He et al. 2015, arXiv:1502.01852, section 2.1):

    y = x where x > 0, else a * x          dx = dy where x > 0, else a * dy
                                           da = sum of dy * x over the x <= 0
"""

import numpy as np

from tinygrad_mnist import SGD, DataLoader, Linear, Module, MSELoss, Parameter, Sequential, metrics
from tinygrad_mnist.data import mnist


class PReLU(Module):
    _x = None  # of the last forward; copies and pickles leave it behind

    def __init__(self, slope=0.25):
        self.slope = Parameter(slope)

    def forward(self, x):
        self._x = np.array(x, self.slope.data.dtype)  # a copy: the caller may change x later
        return np.where(self._x > 0, self._x, self.slope.data * self._x)

    def backward(self, dy):
        self.slope.accumulate(np.sum(dy * self._x, where=self._x <= 0))
        return np.where(self._x > 0, dy, self.slope.data * dy)


(x_train, y_train), (x_test, y_test) = mnist.load_data()
x_train, t_train = mnist.preprocess(x_train, y_train)
x_test, _ = mnist.preprocess(x_test, y_test)

rng = np.random.default_rng(0)
model = Sequential(Linear(784, 100, rng=rng, input_grad=False), PReLU(), Linear(100, 10, rng=rng))
print(model)
print(*(f"{name} {parameter}" for name, parameter in model.named_parameters()), sep="\n")

loss = MSELoss("batchmean")
optimizer = SGD(model.parameters(), lr=0.02)
for epoch in range(1, 4):
    for x, t in DataLoader(x_train, t_train, batch_size=100, shuffle=True, rng=rng):
        loss(model(x), t)
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
    accuracy = metrics.accuracy(model(x_test), y_test)
    print(f"epoch {epoch}  test accuracy {accuracy:.4f}  slope {model[1].slope.data:.3f}")
