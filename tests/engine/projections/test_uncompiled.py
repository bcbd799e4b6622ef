"""The kernels are ordinary Python as well: uncompiled they give the same answers.

NumPy then warns of every sum that leaves 64 bits, and warnings are errors, so this run also shows that none does.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import numba
import pytest

HERE: Final = Path(__file__).parent
TIMEOUT_S: Final = 900


@pytest.mark.skipif(numba.config.DISABLE_JIT == 1, reason="this run is the uncompiled one already")
def test_the_kernels_without_compilation() -> None:
    """In a process of its own, because the choice is made when Numba is imported."""
    files = [str(HERE / name) for name in ("test_crashes.py", "test_against_replay.py")]
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", *files, "-k", "deleting or AnyHistory", "-p", "no:cacheprovider"],
        cwd=HERE.parents[2],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout
    assert "2 passed" in finished.stdout
