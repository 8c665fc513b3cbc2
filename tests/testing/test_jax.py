"""check_jax: functions and custom_vjps, trees of arrays, and what is left."""

import threading

import numpy as np
import pytest
from helpers import refusal
from layers import normal

from tinygrad_mnist.testing import GradientCheckError, ModuleContractError

jax = pytest.importorskip("jax", reason="needs the extra `keras`")
jnp = jax.numpy

from tinygrad_mnist.testing.jax import check_jax  # noqa: E402

X, W = normal(5, 4), normal(4, 3, seed=1)


def custom(backward):
    """Return x**3 with a gradient of one's own."""

    @jax.custom_vjp
    def cube(x):
        return x**3

    cube.defvjp(lambda x: (cube(x), x), lambda x, dy: (backward(x, dy),))
    return cube


def noise(key, x):
    return x * jax.random.bernoulli(key, 0.5, x.shape)


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (custom(lambda x, dy: 3 * x**2 * dy), (X,)),
        (jnp.matmul, (X, W)),
        (jax.nn.log_softmax, (X,)),
        (jax.nn.dot_product_attention, (normal(1, 3, 2, 4),) * 3),  # float32 inside
        (lambda x, rows: x[rows], (X, np.array([2, 0, 2]))),
        (noise, (jax.random.PRNGKey(0), X)),
        (noise, (jax.random.key(0), X)),
        (lambda x: x if x.sum() > 0 else 2 * x, (X,)),  # which cannot be compiled
        (lambda x, power: x**power, (abs(X) + 0.1, 2.5)),
        (lambda name, x: x * len(name), ("abc", X)),
    ],
)
def test_right_functions_pass(function, inputs):
    assert check_jax(function, *inputs)


def test_the_floats_of_a_tree_are_named_by_their_paths():
    def mlp(layers, x):
        for layer in layers:
            x = jnp.tanh(x @ layer["w"] + layer["b"]) * layer["times"]
        return x

    layers = [{"w": W, "b": np.zeros(3), "times": 2}]
    report = check_jax(mlp, layers, X)
    assert report.subject == "mlp"
    assert [a.name for a in report.arrays] == ["layers[0]['b']", "layers[0]['w']", "x"]


def test_a_wrong_gradient_is_named_by_its_array_and_entry():
    wrong = custom(lambda x, dy: (3 * x**2 * dy).at[3, 2].multiply(1.001))
    with pytest.raises(GradientCheckError) as caught:
        check_jax(wrong, X)
    assert caught.value.report.subject == "cube"
    assert [(m.name, m.index) for m in caught.value.report.mismatches] == [("x", (3, 2))]


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        (custom(lambda x, dy: 3 * x**2 * jnp.clip(dy, -100, 100)), "linear"),
        (lambda x: (x, x), "shape"),
        (lambda x: jnp.argmax(x), "dtype"),
        (lambda x: jnp.sqrt(x * 0), "finite"),
    ],
)
def test_a_broken_rule_is_named(function, rule):
    with pytest.raises(ModuleContractError) as caught:
        check_jax(function, X)
    assert caught.value.rule == rule


def test_the_error_of_a_function_is_its_own():
    with pytest.raises(TypeError, match="dot_general requires contracting dimensions"):
        check_jax(jnp.matmul, X, X)


def test_float64_is_switched_on_for_the_check_alone_and_in_this_thread_alone():
    seen, elsewhere = set(), set()

    def sine(x):
        seen.add(str(x.dtype))
        other = threading.Thread(target=lambda: elsewhere.add(str(jnp.ones(1, float).dtype)))
        other.start()
        other.join()
        return jnp.sin(x)

    assert not jax.config.jax_enable_x64
    assert check_jax(sine, X)
    with pytest.raises(ModuleContractError):
        check_jax(jnp.argmax, X)
    assert not jax.config.jax_enable_x64
    assert (seen, elsewhere) == ({"float64"}, {"float32"})


def test_what_cannot_be_judged_is_refused():
    with refusal(TypeError, "check_jax: expected dtype float32 or float64, got float16"):
        check_jax(jnp.sin, X, dtype=np.float16)
    floats = "check_jax: expected an array of floats to differentiate for, got none"
    with refusal(ValueError, floats):
        check_jax(lambda i: i * 1.0, np.arange(3))
