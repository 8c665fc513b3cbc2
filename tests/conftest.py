"""Hypothesis profiles: `ci` repeats the same examples, `dev` looks for new ones."""

import os

import hypothesis

hypothesis.settings.register_profile(
    "ci", max_examples=100, derandomize=True, deadline=None, database=None, print_blob=True
)
hypothesis.settings.register_profile("dev", max_examples=25, deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")
