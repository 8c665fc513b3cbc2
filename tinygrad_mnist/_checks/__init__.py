"""One style of refusal: whatever comes in is checked here, as in `check.floats(self, "x", x)`."""

from tinygrad_mnist._checks.arrays import *
from tinygrad_mnist._checks.labels import *
from tinygrad_mnist._checks.refusal import *
from tinygrad_mnist._checks.settings import *
