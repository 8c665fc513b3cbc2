"""Settings for your own layers and optimizers: attributes that are checked whenever they are set.

In the body of a class: `p = Real("[0, 1)")`, `steps = Integer(at_least=0)`, `nesterov = Flag()`,
`reduction = Choice("mean", "sum")`, and `weight = Held()` for a Parameter.
"""

from tinygrad_mnist._checks import Choice, Flag, Integer, Real
from tinygrad_mnist.parameter import Held

__all__ = ["Choice", "Flag", "Held", "Integer", "Real"]
