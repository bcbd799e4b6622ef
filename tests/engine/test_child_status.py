"""Claim: how a child has ended is told in words."""

import signal

import pytest

from bezant.engine.child_status import tell_status


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (0, "status 0"),
        (70, "status 70"),
        (-signal.SIGTERM, "SIGTERM"),
        (-signal.SIGBUS, "SIGBUS: a file that it reads was shortened meanwhile"),
        (-signal.SIGKILL, "SIGKILL: somebody killed it"),
        (-(signal.SIGRTMIN + 2), f"signal {signal.SIGRTMIN + 2}"),
    ],
)
def test_a_status_in_words(status: int, told: str) -> None:
    assert tell_status(status).startswith(told)
