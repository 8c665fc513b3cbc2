"""check_torch: functions, autograd.Functions and modules, right and wrong, and what is left."""

import numpy as np
import pytest
from helpers import refusal
from layers import normal

from tinygrad_mnist.testing import GradientCheckError, ModuleContractError

torch = pytest.importorskip("torch", reason="needs the extra `torch`")
F, nn = torch.nn.functional, torch.nn

from tinygrad_mnist.testing.torch import check_torch  # noqa: E402


def tensor(*shape, seed=0, dtype=torch.float64):
    return torch.from_numpy(normal(*shape, seed=seed)).to(dtype)


THREADS = torch.get_num_threads()
X = tensor(5, 4)
OWN = torch.Generator()  # which nobody sets back
LABELS = torch.tensor([0, 3, 1, 1, 2])


class Cube(torch.autograd.Function):
    """y = x**3"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * dy


class WrongCube(Cube):
    @staticmethod
    def backward(ctx, dy):
        dx = Cube.backward(ctx, dy)
        dx[3, 2] *= 1.01
        return dx


class EditsDy(Cube):
    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return dy.mul_(3 * x**2)


class EditsX(Cube):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.clone())
        y = x**3
        x.zero_()
        return y


class AssumesContiguous(Cube):
    """As a kernel does that is given a pointer, and no strides."""

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        memory = torch.as_strided(dy, (1,) if dy.stride() == (0, 0) else (dy.numel(),), (1,))
        return 3 * x**2 * memory.expand(dy.numel()).reshape(dy.shape)


class Scaled(nn.Module):
    """y = gain * x, with a gradient of gain that is missing in part."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4, dtype=torch.float64))

    def forward(self, x):
        kept = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64)
        return x * (self.gain * kept + (self.gain * (1 - kept)).detach())


def network(dtype=torch.float64):
    torch.manual_seed(0)
    layers = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.4), nn.Linear(6, 3)
    return nn.Sequential(*layers).to(dtype)


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (Cube.apply, (X,)),
        (F.linear, (X, tensor(3, 4, seed=1), tensor(3, seed=2))),
        (F.mse_loss, (X, tensor(5, 4, seed=1))),
        (lambda x: F.cross_entropy(x, LABELS), (X,)),
        (lambda x: F.dropout(x, 0.4), (X,)),
        (lambda x: x + torch.rand_like(x), (X,)),
        (lambda x, rows: x[rows], (X, LABELS)),
        (lambda x, unused: x.exp(), (X, X)),
        (network(), (X,)),
        (network().eval(), (X,)),
        (lambda a, b: torch.fft.hfft(torch.complex(a, b)), (X, X)),  # a gradient yet to be negated
        (nn.Embedding(7, 3, dtype=torch.float64), (LABELS,)),
        (nn.GRUCell(4, 3, dtype=torch.float64), (X,)),
    ],
)
def test_right_functions_pass(function, inputs):
    assert check_torch(function, *inputs)


def test_a_module_is_checked_with_its_parameters_by_name():
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double()
    module[0].bias.requires_grad_(False)
    report = check_torch(module, X)
    assert report.subject == "Sequential"
    assert [a.name for a in report.arrays] == ["input", "0.weight", "1.weight", "1.bias"]


def test_an_input_and_a_parameter_of_one_name_are_told_apart():
    class Gain(nn.Module):
        def __init__(self):
            super().__init__()
            self.x = nn.Parameter(torch.ones(4, dtype=torch.float64))

        def forward(self, x):
            return x * self.x**2

    assert [a.name for a in check_torch(Gain(), X).arrays] == ["x (0)", "x (1)"]


def test_a_wrong_gradient_is_named_by_its_tensor_and_entry():
    with pytest.raises(GradientCheckError) as caught:
        check_torch(WrongCube.apply, X)
    assert [(m.name, m.index) for m in caught.value.report.mismatches] == [("x", (3, 2))]
    with pytest.raises(GradientCheckError) as caught:
        check_torch(Scaled(), X)
    assert [(m.name, m.index) for m in caught.value.report.mismatches] == [("gain", (2,))]


def test_a_parameter_at_a_neutral_value_hides_nothing():
    class Gain(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, gain):
            ctx.save_for_backward(x)
            return x * gain

        @staticmethod
        def backward(ctx, dy):
            return dy, (dy * ctx.saved_tensors[0]).sum(0)  # dx without the gain, which is 1

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(4, dtype=torch.float64))

        def forward(self, x):
            return Gain.apply(x, self.gain)

    with pytest.raises(GradientCheckError, match="at generic parameters"):
        check_torch(Module(), X)


def test_a_function_without_a_graph_has_gradients_of_0():
    with pytest.raises(GradientCheckError, match="this gradient is never added"):
        check_torch(lambda x: x.detach() ** 2, X)


def test_a_backward_that_edits_dy_is_found_where_gradcheck_passes():
    assert torch.autograd.gradcheck(EditsDy.apply, X.clone().requires_grad_())
    with pytest.raises(ModuleContractError) as caught:
        check_torch(EditsDy.apply, X)
    assert caught.value.rule == "keeps-dy"


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        (EditsX.apply, "keeps-input"),
        (AssumesContiguous.apply, "layout"),
        (lambda x: x + torch.rand(1, generator=OWN, dtype=x.dtype), "reproducible"),
        (lambda x: x.topk(2), "shape"),
        (lambda x: torch.fft.rfft(x), "dtype"),
        (lambda x: torch.sqrt(x * 0), "finite"),
    ],
)
def test_a_broken_rule_is_named(function, rule):
    with pytest.raises(ModuleContractError) as caught:
        check_torch(function, X)
    assert caught.value.rule == rule


def test_tensors_module_and_generator_are_left_as_found():
    module, x = network().train(), X.clone().requires_grad_()
    module(x).sum().backward()
    held = [x, *module.parameters(), *module.buffers()]
    before = [t.detach().clone() for t in [*held, x.grad, *(p.grad for p in module.parameters())]]
    state, version = torch.get_rng_state(), x._version
    check_torch(module, x)
    after = [*held, x.grad, *(p.grad for p in module.parameters())]
    assert all(map(torch.equal, before, after))
    assert torch.equal(state, torch.get_rng_state())
    assert module.training
    assert x.requires_grad
    assert x._version == version
    assert torch.get_num_threads() == THREADS


def test_a_check_that_fails_sets_the_generator_back_too():
    state = torch.get_rng_state()
    with pytest.raises(GradientCheckError):
        check_torch(lambda x: WrongCube.apply(F.dropout(x, 0.1)), X)
    assert torch.equal(state, torch.get_rng_state())


def test_gradients_are_taken_where_the_caller_has_switched_them_off():
    with torch.no_grad():
        assert check_torch(torch.sin, X)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(3))
def test_a_backward_that_adds_dy_to_other_numbers_may_round_it(dtype, seed):
    assert check_torch(torch.linalg.matrix_exp, tensor(4, 4, seed=seed, dtype=dtype))


@pytest.mark.parametrize("factor", [1, 1.02])
def test_float32_tensors_are_judged_in_float32(factor):
    class Tanh(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            assert x.dtype == torch.float32
            ctx.save_for_backward(x.tanh())
            return x.tanh()

        @staticmethod
        def backward(ctx, dy):
            (y,) = ctx.saved_tensors
            return dy * (1 - y**2) * factor

    found = check_torch(Tanh.apply, X.float(), raise_on_failure=False)
    assert bool(found) == (factor == 1)


def test_a_float32_network_is_right():
    assert check_torch(network(torch.float32), X.float())


def test_a_class_is_refused_with_what_to_pass():
    text = (
        "check_torch: expected a function of tensors, such as `apply` of an autograd.Function, or "
        "a module, got the class Tanh"
    )
    with refusal(TypeError, text):
        check_torch(torch.nn.Tanh, torch.ones(2))


def test_what_cannot_be_judged_is_refused():
    with refusal(TypeError, "check_torch: expected input to be a tensor, got 0.5"):
        check_torch(F.relu, 0.5)
    kinds = "check_torch: expected input in float32 or float64, got a tensor of torch."
    with refusal(TypeError, f"{kinds}float16"):
        check_torch(F.relu, X.half())
    with refusal(TypeError, f"{kinds}complex128"):
        check_torch(F.relu, X + 1j)
    floats = "check_torch: expected an array of floats to differentiate for, got none"
    with refusal(ValueError, floats):
        check_torch(lambda i: i.double(), LABELS)


def test_settings_are_those_of_check_gradients():
    report = check_torch(torch.sin, X, max_entries=3, directions=0, seed=7)
    assert (report.seed, [a.checked for a in report.arrays]) == (7, [3])
    wrong = check_torch(WrongCube.apply, X, raise_on_failure=False)
    assert not wrong
    assert np.isclose(wrong.mismatches[0].ratio, 1.01)
