"""Hypothesis profiles, `ci` of the same examples and `dev` of new ones; and what saves time."""

import gc
import os
import re

import hypothesis
import pytest

hypothesis.settings.register_profile(
    "ci", max_examples=100, derandomize=True, deadline=None, database=None, print_blob=True
)
hypothesis.settings.register_profile("dev", max_examples=25, deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

# JAX compiles what the tests run once or twice: as fast code, that took as long as all the rest
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


# where compiled kernels make steps, beside tests/compiled
COMPILED = re.compile(r"test_(compiled|resume|interrupts|examples)\.py|says\[(compiled|notebook)\]")


def pytest_collection_modifyitems(items):
    """Run tests/compiled first, and last, in the other process, what finds its kernels on disk."""
    items.sort(key=turn)


def turn(item):
    if "tests/compiled/" in item.nodeid:
        return 0
    return 2 if COMPILED.search(item.nodeid) else 1


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Leave the libraries and tests, which stay, out of all garbage collections."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
