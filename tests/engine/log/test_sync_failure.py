"""Claim: the first write or sync of the log that fails is the last thing that the process does.

In a process of its own, which would say so if it got any further.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from bezant.net.server.failure import EXIT_STATUS_BUG, EXIT_STATUS_SYNC_FAILED

from .logs import read_facts

TIMEOUT_S: Final = 60

PROGRAM: Final = """
import errno, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from bezant.net.server.syncing import write_or_die
from tests.engine.log.logs import Writer

writer = Writer(Path(sys.argv[1]))
writer.write(3)
failing, kind = sys.argv[2], sys.argv[4]

def fail(*arguments):
    print("tried", flush=True)
    raise OSError(errno.EIO, os.strerror(errno.EIO)) if kind == "disk" else RuntimeError("a bug")

pwritev = os.pwritev

def write_then_fail(descriptor, buffers, offset, flags=0):
    pwritev(descriptor, buffers, offset)
    fail()

if failing:
    os.pwritev = write_then_fail if failing == "sync" else fail
writer.append(2)
group = writer.log.begin_group()
seconds = write_or_die(group)
print("went on", flush=True)
writer.log.finish_group(group)
writer.close()
"""


def run(folder: Path, failing: str, kind: str = "disk") -> "subprocess.CompletedProcess[str]":
    root = Path(__file__).parents[3]
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), failing, str(root), kind],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.mark.parametrize("failing", ["sync", "write"])
def test_a_failed_group_ends_the_process_at_once(tmp_path: Path, failing: str) -> None:
    finished = run(tmp_path, failing)
    assert finished.returncode == EXIT_STATUS_SYNC_FAILED == 74
    assert finished.stdout == "tried\n"
    assert "writing the log failed: [Errno 5] Input/output error" in finished.stderr
    assert "The process ends now" in finished.stderr
    # The group before it is there; of this one only what the page cache happens to have.
    facts = read_facts(tmp_path)
    assert [fact.count for fact in facts] == ([3] if failing == "write" else [3, 2])


def test_a_bug_ends_it_as_well(tmp_path: Path) -> None:
    """Else the thread alone would end, and everybody would wait for the group for ever."""
    finished = run(tmp_path, "write", "bug")
    assert finished.returncode == EXIT_STATUS_BUG
    assert finished.stdout == "tried\n"
    assert "RuntimeError: a bug" in finished.stderr


def test_a_group_that_does_not_fail_returns(tmp_path: Path) -> None:
    finished = run(tmp_path, "")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "went on\n", "")
    assert [fact.count for fact in read_facts(tmp_path)] == [3, 2]
