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
