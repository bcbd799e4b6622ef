"""Claim: what a batch needs and frees is there for the next one, without the kernel having to zero it again."""

import os
import resource
import subprocess
import sys

import pytest

BUFFER_BYTES = 2 << 20
ROUNDS = 50
FAULTS = f"""
import resource
import numpy as np
from bezant.net.server.allocation import keep_freed_memory
if not keep_freed_memory():
    raise SystemExit("not the GNU C library")
def use():
    for _ in range({ROUNDS}):
        buffers = [np.empty({BUFFER_BYTES}, np.uint8) for _ in range(4)]
        for buffer in buffers:
            buffer[:: {resource.getpagesize()}] = 1
        del buffers, buffer
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(code: str) -> int:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    if "not the GNU" in done.stderr:
        pytest.skip("this allocator cannot be told")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_buffers_that_are_freed_are_not_zeroed_again() -> None:
    assert _faults(FAULTS) < BUFFER_BYTES // resource.getpagesize()
