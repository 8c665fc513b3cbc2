"""A small part of the fuzzing on every run of the tests: the same changes, oracles and readers."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from targets import TARGETS


@pytest.fixture(scope="module", params=TARGETS)
def reader(request, tmp_path_factory):
    """Return a target, and what was written for it to read."""
    target = TARGETS[request.param](tmp_path_factory.mktemp(request.param))
    return target, target.seeds()


def test_what_was_written_is_read(reader):
    target, written = reader
    assert all(map(target.run, written))


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32))
def test_a_changed_file_loads_as_others_read_it_or_is_refused_and_changes_nothing(reader, seed):
    (target, written), rng = reader, random.Random(seed)
    content = rng.choice(written)
    for _ in range(rng.choice([1, 1, 2])):
        content = target.mutate(content, rng)
    target.run(content)


def test_some_changed_files_load_and_some_are_refused(reader):
    (target, written), rng = reader, random.Random(0)
    loaded = [target.run(target.mutate(rng.choice(written), rng)) for _ in range(40)]
    assert {*loaded} == {True, False}
