"""The benchmark's machinery, on one small case. No time is expected."""

import os
import sys
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # as when a script of this folder runs
import compare
from networks import CASES, dense
from peers import CONTENDERS, OURS, Contender
from tables import table_rows

CASE = replace(CASES["row-100"], title="tiny", layers=dense(784, 3, 10, dropout=True))


class Claims:
    """A worker whose contender says that this is its loss."""

    def __init__(self, loss):
        self._loss = loss

    def submit(self, *call):
        future = Future()
        future.set_result(self._loss)
        return future


@pytest.fixture
def workers():
    workers = {CONTENDERS[key]: compare.Worker({}) for key in ("ours", "notebook")}
    yield workers
    for worker in workers.values():
        worker.stop()


def test_ours_and_the_notebook_train_the_same_network_and_have_a_row_each(workers):
    losses = compare.same_network(CASE, workers)  # makes the steps that are timed
    assert list(losses) == [OURS, CONTENDERS["notebook"].label]
    times = compare.interleaved(workers, rounds=1, enough=0)
    rows = list(compare.timings("tiny", CASE, times))
    rows = [compare.with_ratios(row, rows) for row in rows]
    assert all(0 < row["min"] <= row["median"] for row in rows)
    header, *lines = table_rows(rows)
    assert [line[1] for line in lines] == list(losses)
    assert header[5:] == ("ours/it, min", "median", "CPU")
    assert lines[0][0] == "tiny [us a step]"
    assert lines[0][5:] == ("1.00", "1.00", "1.00")


def test_a_contender_with_another_loss_ends_the_run():
    claims = {Contender(str(loss), (), ""): Claims(loss) for loss in (2.0, 2.0, 2.001)}
    with pytest.raises(SystemExit, match="expected 2.001 to get 2.0, got 2.001"):
        compare.same_network(CASE, claims)


def test_an_environment_is_a_worker_s_alone(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    worker = compare.Worker(CONTENDERS["floor1"].environment)
    assert worker(os.getenv, "OMP_NUM_THREADS") == "1"
    assert "OMP_NUM_THREADS" not in os.environ
    worker.stop()


def test_every_case_names_contenders_that_there_are():
    assert all(CONTENDERS.keys() >= {*case.keys} for case in CASES.values())
