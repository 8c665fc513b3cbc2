"""One style of refusal: whatever comes in is checked here, as in `check.floats(self, "x", x)`.

In a layer, `floats` returns x as an array of floats, `owned` a copy of it, `cotangent` dy as an
array like y, and `kept` what forward kept; `same_shape` broadcasts nothing. In a class body,
`p = Real("[0, 1)")` declares a setting: an attribute that is checked whenever it is set.
"""

from tinygrad_mnist._checks.arrays import *
from tinygrad_mnist._checks.labels import *
from tinygrad_mnist._checks.refusal import *
from tinygrad_mnist._checks.settings import *
