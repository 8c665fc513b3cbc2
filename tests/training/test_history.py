"""History: what it writes comes back to the last bit, and nothing else is taken for it."""

import json
import math

import numpy as np
import pytest
from helpers import refusal, refusal_starting

from tinygrad_mnist.training import History

RECORDS = [
    {"epoch": 1, "lr": 0.1, "loss": 1 / 3, "accuracy": 0.5},
    {"epoch": 2, "lr": 0.1, "loss": 5e-324, "accuracy": 1.0, "val_loss": 1.7976931348623157e308},
]


def test_json_keeps_every_bit(tmp_path):
    History(RECORDS).to_json(tmp_path / "h.json")
    assert json.loads((tmp_path / "h.json").read_text()) == RECORDS
    assert History.from_json(tmp_path / "h.json") == History(RECORDS)


def test_json_keeps_nan_and_infinity(tmp_path):
    History([{"a": math.nan, "b": -math.inf}]).to_json(tmp_path / "h.json")
    (record,) = History.from_json(str(tmp_path / "h.json")).records
    assert math.isnan(record["a"])
    assert record["b"] == -math.inf


def test_json_takes_the_numbers_of_numpy(tmp_path):
    History([{"a": np.float32(0.1), "b": np.int64(3)}]).to_json(tmp_path / "h.json")
    assert History.from_json(tmp_path / "h.json").records == [{"a": float(np.float32(0.1)), "b": 3}]


@pytest.mark.parametrize("value", ["first", None, True, 10**309, -(10**400), [1.0]])
@pytest.mark.parametrize("write", [History.to_json, History.to_csv])
def test_what_could_not_be_read_again_is_not_written(tmp_path, write, value):
    with refusal(ValueError, "something else than numbers by name as record 2"):
        write(History([{"loss": 1.0}, {"loss": value}]), tmp_path / "h")
    assert list(tmp_path.iterdir()) == []


def test_integers_that_a_float_can_hold_are_numbers(tmp_path):
    History([{"a": 10**308, "b": -(2**70)}]).to_json(tmp_path / "h.json")
    assert History.from_json(tmp_path / "h.json").records == [{"a": 10**308, "b": -(2**70)}]


def test_csv_has_a_column_for_every_name(tmp_path):
    History(RECORDS).to_csv(tmp_path / "h.csv")
    assert (tmp_path / "h.csv").read_text() == (
        "epoch,lr,loss,accuracy,val_loss\n"
        "1,0.1,0.3333333333333333,0.5,\n"
        "2,0.1,5e-324,1.0,1.7976931348623157e+308\n"
    )


def test_a_column_is_one_number_of_every_epoch():
    assert History(RECORDS).column("accuracy") == [0.5, 1.0]
    contract = "one of epoch, lr, loss, accuracy, in every record"
    with refusal(ValueError, f"History: expected {contract}, got 'val_loss'"):
        History(RECORDS).column("val_loss")
    assert History().column("anything") == []


def losses(*values, name="loss"):
    return History([{"epoch": i, name: value} for i, value in enumerate(values, 1)])


@pytest.mark.parametrize(
    ("values", "name", "mode", "epoch"),
    [
        ([3.0, 1.0, 2.0], "val_loss", None, 2),
        ([3.0, 1.0, 1.0], "loss", None, 2),  # equal is no better
        ([3.0, 1.0, 4.0], "loss", "max", 3),
        ([0.1, 0.9, 0.9], "val_top_k_accuracy", None, 2),
        ([0.1, 0.9, 0.9], "accuracy", "min", 1),
        ([0.9, 0.1, 0.9], "val_mean_absolute_error", None, 2),
        ([0.1, 0.9, 0.2], "f1", "max", 2),
        ([math.nan, 2.0, math.inf, -1.0], "loss", None, 4),
        ([math.nan, -math.inf, 3.0], "r2", "max", 3),
        ([math.nan, math.nan], "loss", None, 1),
        ([math.nan, math.inf], "loss", None, 2),
    ],
)
def test_the_best_record_is_the_first_one_that_no_other_beats(values, name, mode, epoch):
    history = losses(*values, name=name)
    assert history.best(name, mode) is history.records[epoch - 1]
    if name.endswith("loss") and mode is None:
        assert history.best() is history.best(name)


def test_the_best_epoch_is_that_of_validation_where_there_is_one():
    history = History([{"loss": 2.0, "val_loss": 1.0}, {"loss": 1.0, "val_loss": 2.0}])
    assert history.best() is history.records[0]
    history.records.append({"loss": 3.0})  # one without validation
    assert history.best() is history.records[1]


def test_what_has_no_best_is_refused():
    with refusal(ValueError, "History: expected at least one record, got none"):
        History().best()
    with refusal(ValueError, 'History: expected mode "min" or "max", got None'):
        losses(1.0, name="f1").best("f1")
    contract = "one of epoch, f1, in every record"
    with refusal(ValueError, f"History: expected {contract}, got 'loss'"):
        losses(1.0, name="f1").best()


def test_histories_are_equal_if_all_but_the_seconds_are():
    one, other = ([{"epoch": 1, "loss": 0.5, "seconds": s}] for s in (1.0, 2.0))
    assert History(one) == History(other) == History([{"epoch": 1, "loss": 0.5}])
    assert History(one) != History([{"epoch": 1, "loss": 0.25, "seconds": 1.0}])
    assert History(one) != History([*one, *one])
    assert History() != []


def test_it_shows_itself_as_a_table_with_the_best_epoch_marked():
    record = {"epoch": 1, "lr": 0.1, "loss": 0.25, "val_loss": 1e-7, "seconds": 1.23}
    late = {"epoch": 2, "lr": 0.05, "loss": 1234.5, "val_loss": math.nan, "seconds": 12.34}
    history = History([record, late, {**late, "epoch": 3, "gap": 0.0}])
    assert str(history) == repr(history) == (
        "epoch    lr    loss  val_loss  seconds     gap\n"
        "1       0.1  0.2500     1e-07     1.23          best\n"
        "2      0.05  1234.5       nan     12.3\n"
        "3      0.05  1234.5       nan     12.3  0.0000"
    )  # fmt: skip
    html = history._repr_html_()
    assert html.count("<tr>") == 4
    assert html.count(">best</td>") == 1
    assert (repr(History()), History()._repr_html_()) == ("History of no epoch", None)
    assert repr(History([{"gap": 1.0}])) == "gap\n1.0000"


def test_a_long_history_shows_its_ends_and_the_best_epoch():
    shown = str(losses(*[2.0] * 40, 1.0, *[2.0] * 59)).splitlines()[1:]
    epochs = [line.split()[0] for line in shown]
    assert epochs == [*"12345", "...", "41", "...", *map(str, range(86, 101))]
    assert [line for line in shown if line.endswith("best")] == ["41     1.0000  best"]
    assert "..." not in str(losses(*[2.0] * 20))


def test_two_histories_do_not_share_their_records():
    History().records.append({})
    assert History().records == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{}", "a dict instead of a list of records"),
        ("[1]", "something else than numbers by name as record 1"),
        ('[{"epoch": 1}, {"loss": "1"}]', "something else than numbers by name as record 2"),
        ('[{"loss": 1%s}]' % ("0" * 400), "something else than numbers by name as record 1"),
        ('[{"loss": true}]', "something else than numbers by name as record 1"),
        ("[", "Expecting value: line 1 column 2 (char 1)"),
        ("\xff", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        ("[" * 100_000, "maximum recursion depth exceeded while decoding a JSON array"),
    ],
)
def test_other_files_are_refused(tmp_path, text, found):
    path = tmp_path / "h.json"
    path.write_bytes(text.encode("latin-1"))
    contract = f"{path} to hold what to_json wrote"
    with refusal_starting(ValueError, f"History.from_json: expected {contract}, got {found}"):
        History.from_json(path)
