"""Learn to read handwritten digits: python examples/mnist.py."""

from tinygrad_mnist import SGD, DataLoader, Linear, MSELoss, ReLU, Sequential
from tinygrad_mnist.data import mnist
from tinygrad_mnist.metrics import accuracy

(images, labels), (test_images, test_labels) = mnist.load_data()
x_train, t_train = mnist.preprocess(images, labels)
x_test, _ = mnist.preprocess(test_images, test_labels)

model = Sequential(Linear(784, 512, rng=0, input_grad=False), ReLU(), Linear(512, 10, rng=1))
loss = MSELoss("batchmean")
optimizer = SGD(model.parameters(), lr=0.02, momentum=0.9)
batches = DataLoader(x_train, t_train, batch_size=32, shuffle=True, rng=2)

for epoch in range(1, 11):
    for x, t in batches:
        loss(model(x), t)
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
    print(f"epoch {epoch:2}  test accuracy {accuracy(model(x_test), test_labels):.4f}")
