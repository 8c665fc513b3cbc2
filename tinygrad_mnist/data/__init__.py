"""Data: MNIST, transforms, and the loader that yields samples or batches."""

from tinygrad_mnist.data.loader import DataLoader

__all__ = ["DataLoader"]
