"""No kernel reads or writes outside an array: other tests again, where every index is checked."""

from pathlib import Path

import pytest
from helpers import run_python

pytest.importorskip("numba")

CHOSEN = """
test_samples and ((any_number_of_columns and float64) or infinity)
or test_batches and ((any_number_of_columns and float64) or infinity or more_than_a_word
                     or more_rows)
or test_images and leaves_what_an_eager_pass_leaves and float64
"""


@pytest.mark.slow
def test_no_kernel_reads_or_writes_outside_an_array(tmp_path):
    command = "-m", "pytest", Path(__file__).parent, "-q", "-p", "no:cacheprovider"
    checking = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_OPT": "1"}
    done = run_python(*command, "-k", " ".join(CHOSEN.split()), **checking)
    assert done.returncode == 0, done.stdout + done.stderr
