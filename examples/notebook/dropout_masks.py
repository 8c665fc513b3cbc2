"""What dropout does to 40 values, as in the notebook: python examples/notebook/dropout_masks.py.

The notebook draws its numbers from NumPy's legacy generator, so this Dropout takes its mask there.
"""

import numpy as np

from tinygrad_mnist import Dropout

legacy = np.random.RandomState(1)
mask = legacy.randint(2, size=40)
layer = 2 * legacy.random_sample((1, 40)) - 1


class NotebookDropout(Dropout):
    def draw_mask(self, shape):
        return mask.reshape(shape)


# the notebook's words, as it spells them
print(f"turned off nodes is:  {np.sum(mask == 0)} of {len(mask)} \n")
print(f"layer values before droput:\n {layer}", end="\n\n")
print(f"layer values after droput:\n {NotebookDropout(0.5)(layer)}")
