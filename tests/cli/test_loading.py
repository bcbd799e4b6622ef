"""Claim: a process of ours loads modules without looking for garbage among them; in another's all is left as it was."""

import gc
import subprocess
import sys

import pytest

from bezant.cli.loading import loading

OURS = """
import gc
from bezant.cli.loading import begin_process, loading

begin_process()
with loading():
    assert not gc.isenabled()
    import decimal
assert gc.isenabled()
assert gc.get_freeze_count() > 1000
"""


def test_what_a_process_of_ours_has_loaded_is_never_looked_through() -> None:
    done = subprocess.run([sys.executable, "-c", OURS], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("collects", [True, False])
def test_the_collector_of_somebody_else_s_process_is_as_it_was(collects: bool) -> None:
    frozen = gc.get_freeze_count()
    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        with pytest.raises(ImportError), loading():
            assert not gc.isenabled()
            raise ImportError("no such thing")
        assert gc.isenabled() is collects
    finally:
        (gc.enable if before else gc.disable)()
    assert gc.get_freeze_count() == frozen
