"""The shapes of the data, a draft of the notebook: python examples/notebook/data_shapes.py."""

from tinygrad_mnist.data import mnist

(x_train, y_train), (x_test, y_test) = mnist.load_data()
images, labels = mnist.preprocess(x_train, y_train)

print(x_train[0:1000].shape)
print(x_train[0].shape)
print(x_test.shape)
print(images[0:1].shape)
print(images[0].shape)
print()
print(y_train[0:1000].shape)
print(y_train[0])
print(labels.shape)
print(labels[9])
print(labels.shape)
