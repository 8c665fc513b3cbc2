"""Hypothesis profiles, `ci` of the same examples and `dev` of new ones; and what saves time."""

import gc
import os

import hypothesis
import pytest

hypothesis.settings.register_profile(
    "ci", max_examples=100, derandomize=True, deadline=None, database=None, print_blob=True
)
hypothesis.settings.register_profile("dev", max_examples=25, deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

# JAX compiles what the tests run once or twice: as fast code, that took as long as all the rest
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Leave the libraries and tests, which stay, out of all garbage collections."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
