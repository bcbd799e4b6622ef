"""The kernels are ordinary Python as well: uncompiled, they pass the tables, a short run of the machine and histories.

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
FILES: Final = (
    *sorted(path.name for path in HERE.glob("test_table*.py")),
    "test_machine.py",
    "test_history.py",
    "test_collisions.py",
    "test_incoming.py",
    "test_rules_version.py",
)
TIMEOUT_S: Final = 900


@pytest.mark.skipif(numba.config.DISABLE_JIT == 1, reason="this run is the uncompiled one already")
def test_the_kernel_without_compilation() -> None:
    """In a process of its own, because the choice is made when Numba is imported."""
    paths = [str(HERE / name) for name in FILES]
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *paths,
            "-k",
            "not model and not (malformed and apart)",
            "-p",
            "no:cacheprovider",
        ],
        cwd=HERE.parents[2],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert " passed" in finished.stdout
