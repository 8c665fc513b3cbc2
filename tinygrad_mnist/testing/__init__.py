"""Check anybody's layers: right gradients and a kept contract, or a report that says where not.

`check_gradients`, `check_loss_gradients`, `check_model_gradients` and `grade` need NumPy alone.
`tinygrad_mnist.testing.strategies` has the same for property-based tests, and needs Hypothesis.
"""

from tinygrad_mnist.testing.functions import check_vjp
from tinygrad_mnist.testing.given import GivenError
from tinygrad_mnist.testing.gradients import (
    check_gradients,
    check_loss_gradients,
    check_model_gradients,
)
from tinygrad_mnist.testing.grading import Grade, grade, grade_loss, grade_optimizer
from tinygrad_mnist.testing.report import (
    GradientCheckError,
    GradientReport,
    InconclusiveGradientCheck,
    ModuleContractError,
)

__all__ = [
    "GivenError",
    "Grade",
    "GradientCheckError",
    "GradientReport",
    "InconclusiveGradientCheck",
    "ModuleContractError",
    "check_gradients",
    "check_loss_gradients",
    "check_model_gradients",
    "check_vjp",
    "grade",
    "grade_loss",
    "grade_optimizer",
]
