"""Claim: a process of ours loads modules without looking for garbage among them; in another's all is left as it was."""

import gc
import os
import subprocess
import sys
from pathlib import Path

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


SHORTENED = """
import mmap, os, subprocess, sys
from bezant.cli.loading import begin_process

def read_on(path):
    with open(path, "r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        os.truncate(path, 0)
        return mapping[0]

if sys.argv[1] == "child":
    read_on(sys.argv[2])
begin_process()
if sys.argv[1] == "parent":
    sys.exit(subprocess.run([sys.executable, sys.argv[0], "child", sys.argv[2]]).returncode)
read_on(sys.argv[2])
"""


@pytest.mark.parametrize("who", ["itself", "parent"])
def test_who_reads_a_file_that_is_shortened_says_where_it_was(tmp_path: Path, who: str) -> None:
    """Its children, too: else they end without a word."""
    program, data = tmp_path / "program.py", tmp_path / "data"
    program.write_text(SHORTENED)
    data.write_bytes(bytes(1 << 16))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONFAULTHANDLER"}
    done = subprocess.run(
        [sys.executable, program, who, data], capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert done.returncode != 0
    assert "Bus error" in done.stderr
    assert "in read_on" in done.stderr


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
