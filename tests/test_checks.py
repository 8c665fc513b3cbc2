"""Settings that are checked whenever they are set, and errors that name a layer's path."""

import copy
import errno
import pickle

import numpy as np
import pytest
from helpers import refusal

from tinygrad_mnist import SGD, DataLoader, Dropout, MSELoss, Parameter
from tinygrad_mnist import _checks as check
from tinygrad_mnist.training import BestCheckpoint, EarlyStopping, LearningRate


def minutes(owner, name, value):
    return None if value is None else check.integer(owner, name, value, at_least=0)


class Oven:
    """Has a setting of each kind, and one with a check of its own."""

    heat = check.Real("(0, 250]")
    shelves = check.Integer(at_least=1)
    timer = check.Setting(minutes)
    tray = check.Sizes(at_least=1)
    steps = check.Integers(at_least=0)
    lit = check.Flag()
    mode = check.Choice("fan", "grill", "both")

    def __init__(self):
        self.heat, self.shelves, self.timer, self.lit, self.mode = 180, 3, None, True, "fan"
        self.tray, self.steps = 40, (1, 0)


class PizzaOven(Oven):
    """Has one more, and a narrower one."""

    stone = check.Flag()
    shelves = check.Integer(at_least=2)


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("heat", np.float32(0.5), 0.5),
        ("heat", 250, 250.0),
        ("shelves", np.int64(7), 7),
        ("timer", 0, 0),
        ("timer", None, None),
        ("tray", 30, (30, 30)),
        ("tray", [np.int64(30), 40], (30, 40)),
        ("steps", [3], (3,)),
        ("steps", (0, np.uint8(2), 1), (0, 2, 1)),
        ("lit", np.False_, False),
        ("mode", "both", "both"),
    ],
)
def test_a_setting_is_kept_as_a_plain_value(name, value, kept):
    oven, other = Oven(), Oven()
    setattr(oven, name, value)
    assert getattr(oven, name) == kept
    assert type(getattr(oven, name)) is type(kept)
    assert getattr(other, name) == getattr(Oven(), name)


@pytest.mark.parametrize(
    ("name", "value", "error", "text"),
    [
        ("heat", 0, ValueError, "heat in (0, 250], got 0"),
        ("heat", 250.1, ValueError, "heat in (0, 250], got 250.1"),
        ("heat", float("nan"), ValueError, "heat in (0, 250], got nan"),
        ("heat", True, TypeError, "heat in (0, 250], got True"),
        ("heat", "hot", TypeError, "heat in (0, 250], got 'hot'"),
        ("shelves", 0, ValueError, "shelves to be an integer >= 1, got 0"),
        ("shelves", 1.0, TypeError, "shelves to be an integer >= 1, got 1.0"),
        ("shelves", None, TypeError, "shelves to be an integer >= 1, got None"),
        ("timer", -1, ValueError, "timer to be an integer >= 0, got -1"),
        ("timer", "1", TypeError, "timer to be an integer >= 0, got '1'"),
        ("tray", 0, ValueError, "tray to be an integer >= 1, got 0"),
        ("tray", 1.5, TypeError, "tray to be an integer >= 1, got 1.5"),
        ("tray", None, TypeError, "tray to be an integer >= 1, got None"),
        ("tray", (30, 0), ValueError, "tray[1] to be an integer >= 1, got 0"),
        ("tray", (True, 30), TypeError, "tray[0] to be an integer >= 1, got True"),
        ("tray", (), ValueError, "tray to be one integer or two, got ()"),
        ("tray", [1, 2, 3], ValueError, "tray to be one integer or two, got a list"),
        ("steps", (), ValueError, "steps to be a tuple of integers, got ()"),
        ("steps", 3, TypeError, "steps to be a tuple of integers, got 3"),
        ("steps", "12", TypeError, "steps to be a tuple of integers, got '12'"),
        ("steps", (1, -1), ValueError, "steps[1] to be an integer >= 0, got -1"),
        ("steps", (1, 1.0), TypeError, "steps[1] to be an integer >= 0, got 1.0"),
        ("lit", 1, TypeError, "lit to be a bool, got 1"),
        ("lit", None, TypeError, "lit to be a bool, got None"),
        ("mode", "steam", ValueError, 'mode "fan", "grill" or "both", got \'steam\''),
        ("mode", None, ValueError, 'mode "fan", "grill" or "both", got None'),
    ],
)
def test_a_setting_that_is_refused_stays_as_it_was(name, value, error, text):
    oven = Oven()
    before = getattr(oven, name)
    with refusal(error, f"Oven: expected {text}"):
        setattr(oven, name, value)
    assert getattr(oven, name) == before


def test_a_subclass_has_the_settings_of_its_base_and_may_narrow_them():
    oven = PizzaOven()
    oven.stone = True
    with refusal(ValueError, "PizzaOven: expected heat in (0, 250], got 400"):
        oven.heat = 400
    with refusal(ValueError, "PizzaOven: expected shelves to be an integer >= 2, got 1"):
        oven.shelves = 1
    assert (oven.stone, oven.heat, oven.shelves) == (True, 180, 3)
    assert list(check.settings_of(Oven)) == [
        "heat",
        "shelves",
        "timer",
        "tray",
        "steps",
        "lit",
        "mode",
    ]
    assert list(check.settings_of(PizzaOven)) == [*check.settings_of(Oven), "stone"]
    assert check.settings_of(PizzaOven)["shelves"] is PizzaOven.shelves


def test_reading_a_setting_runs_no_code():
    assert isinstance(Oven.heat, check.Setting)
    assert not hasattr(check.Setting, "__get__")
    assert vars(Oven())["heat"] == 180


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copies_keep_the_values_and_stay_checked(copied):
    oven = Oven()
    oven.heat = 90
    twin = pickle.loads(copied(oven)) if copied is pickle.dumps else copied(oven)
    oven.heat = 100
    assert vars(twin) == {**vars(oven), "heat": 90}
    with refusal(ValueError, "Oven: expected heat in (0, 250], got -1"):
        twin.heat = -1


MADE = {
    "Dropout": lambda: Dropout(0.5, rng=0),
    "MSELoss": MSELoss,
    "SGD": lambda: SGD([Parameter(1.0)], 0.1, 0.9, 0.01, True),
    "DataLoader": lambda: DataLoader([1, 2], [3, 4], 2, True, True),
    "EarlyStopping": lambda: EarlyStopping(patience=3),
    "BestCheckpoint": lambda: BestCheckpoint("best.npz"),
    "LearningRate": lambda: LearningRate(lambda t: 0.1),
}
REFUSED = [
    ("Dropout", "p", 1, ValueError, "p in [0, 1), got 1"),
    ("Dropout", "p", "0.5", TypeError, "p in [0, 1), got '0.5'"),
    (
        "MSELoss",
        "reduction",
        "none",
        ValueError,
        'reduction "mean", "sum" or "batchmean", got \'none\'',
    ),
    ("SGD", "lr", -0.1, ValueError, "lr in [0, inf), got -0.1"),
    ("SGD", "lr", float("inf"), ValueError, "lr in [0, inf), got inf"),
    ("SGD", "lr", None, TypeError, "lr in [0, inf), got None"),
    ("SGD", "momentum", 2, ValueError, "momentum in [0, 1], got 2"),
    ("SGD", "weight_decay", -1, ValueError, "weight_decay in [0, inf), got -1"),
    ("SGD", "nesterov", 1, TypeError, "nesterov to be a bool, got 1"),
    ("DataLoader", "batch_size", 0, ValueError, "batch_size to be an integer >= 1, got 0"),
    ("DataLoader", "batch_size", 2.0, TypeError, "batch_size to be an integer >= 1, got 2.0"),
    ("DataLoader", "shuffle", 0, TypeError, "shuffle to be a bool, got 0"),
    ("DataLoader", "drop_last", None, TypeError, "drop_last to be a bool, got None"),
    (
        "DataLoader",
        "transform",
        1,
        TypeError,
        "transform to be a function of (x, rng), or None, got 1",
    ),
    ("EarlyStopping", "patience", 0, ValueError, "patience to be an integer >= 1, got 0"),
    ("EarlyStopping", "restore_best", 1, TypeError, "restore_best to be a bool, got 1"),
    ("EarlyStopping", "mode", "best", ValueError, 'mode "min" or "max", got \'best\''),
    ("BestCheckpoint", "mode", None, ValueError, 'mode "min" or "max", got None'),
    ("LearningRate", "per", "batch", ValueError, 'per "epoch" or "step", got \'batch\''),
]


@pytest.mark.parametrize(("owner", "name", "value", "error", "text"), REFUSED)
def test_each_setting_of_the_package_is_checked_when_set(owner, name, value, error, text):
    made = MADE[owner]()
    before = getattr(made, name)
    with refusal(error, f"{owner}: expected {text}"):
        setattr(made, name, value)
    assert getattr(made, name) == before


def test_no_setting_of_these_classes_is_left_out_above():
    for owner, make in MADE.items():
        tried = {name for kind, name, *_ in REFUSED if kind == owner}
        assert tried == set(check.settings_of(type(make())))


@pytest.mark.parametrize(
    ("error", "kind", "passes"),
    [
        (OSError("no gzip file"), ValueError, False),  # made by a library, not by the system
        (RecursionError("too deep"), ValueError, False),
        (KeyError("a"), ImportError, False),
        (TimeoutError(errno.ETIMEDOUT, "no answer"), ConnectionError, False),
        (OSError(errno.EIO, "the disk cannot be read"), ValueError, True),
        (PermissionError(errno.EACCES, "not yours"), ImportError, True),
        (MemoryError(), ValueError, True),
        (MemoryError(), ConnectionError, True),
        (KeyboardInterrupt(), ValueError, True),
    ],
)
def test_what_goes_wrong_is_refused_unless_the_machine_is_to_blame(error, kind, passes):
    with (
        pytest.raises(type(error) if passes else kind) as caught,
        check.refusing("Reader", "a file", kind),
    ):
        raise error
    if passes:
        assert caught.value is error
    else:
        assert type(caught.value) is kind
        assert str(caught.value) == f"Reader: expected a file, got {error}"
        assert caught.value.__cause__ is error


def test_an_object_of_another_framework_is_called_one_of_it():
    foreign = type("Parameter", (), {"__module__": "torch.nn.parameter"})()
    with refusal(TypeError, "SGD: expected params to be Parameters, got a Parameter of torch"):
        SGD([foreign], lr=0.1)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (SGD([Parameter(1.0)], 0.1), "an SGD"),
        (EarlyStopping(), "an EarlyStopping"),
        (object(), "an object"),
        (np.tanh, "a ufunc"),
        (Parameter(1.0), "a Parameter"),
        ([1], "a list"),
    ],
)
def test_an_object_is_called_by_its_kind(value, told):
    assert check.described(value) == told


@pytest.mark.parametrize(
    ("told", "word"),
    [
        ("a state dict, got 'model.npz'", "np.load"),
        ("a state dict of its parameters, got no 0.weight", None),
        ("dy of shape (4, 10), got ()", "loss.backward()"),
        ("dy of shape (4, 10), got (4,)", None),
        ("x of shape (..., H, W, 1), got (4, 28, 28)", "x[..., None]"),
        ("the x of shape (..., 3), got (4,)", None),
        ("weight to be an array of real numbers, got a Linear", "model[0].weight.data"),
        ("labels to be integers, got dtype float64", "labels.astype(int)"),
        ("a Module, got 'model.npz'", "path comes first"),
        ("a Module, got a list", None),
        ("sample_shape[0] to be an integer >= 1, got None", "(784,)"),
        ("sample_shape[0] to be an integer >= 1, got 0", None),
        ("target to be an array of real numbers, got an array of dtype object", "np.unique"),
        ("targets to be an array of real numbers, got a list", "regular shape"),
        ("targets to be an array of real numbers, got a masked array", "filled"),
        ("layers that load_model can make again, got A, which makes another x", "_x = None"),
        ("layers that load_model can make again, got a custom ReLU at 0", None),
    ],
)
def test_a_remedy_is_for_the_whole_contract_and_where_it_says_so_for_the_value(told, word):
    remedy = check.remedy_for(told)
    assert remedy is None if word is None else word in remedy


class Chain:
    pass


class Layer:
    pass


@pytest.mark.parametrize(
    ("message", "located"),
    [
        ("Layer: expected x, got y", "Chain, layer 4: Layer: expected x, got y"),
        ("Layer, layer 1.0: Linear: no", "Chain, layer 4.1.0: Linear: no"),
        ("Other: expected x, got y", "Chain, layer 4: Layer: Other: expected x, got y"),
        (
            "Block, layer 2: Other: expected x",
            "Chain, layer 4: Layer: Block, layer 2: Other: expected x",
        ),
        ("could not broadcast", None),
        ("Other: could not broadcast", None),
        ("I expected more", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("kind", [ValueError, TypeError])
def test_a_refusal_of_a_layer_is_led_by_its_path_and_nothing_else_is(kind, message, located):
    error = kind(message)
    check.locate(error, Chain(), 4, Layer())
    assert error.args == (located or message,)
