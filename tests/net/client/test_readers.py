"""Claim: who asks for what does not come in time is told why, and not just that the time is up."""

import pytest

from bezant.net.client.readers import BACKOFF_S_MAX, ReaderChannel
from bezant.protocol.errors import ConnectionFailed, RequestRefused, RequestTimedOut
from bezant.protocol.frames import FrameError, Operation

TIMEOUT_S = 0.1


class Answers:
    """A channel that gives one error after the other, and the last one again and again."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def request(self, operation: Operation, body: bytes, timeout_s: float) -> bytes:
        assert 0 < timeout_s <= TIMEOUT_S
        raise self.errors.pop(0) if len(self.errors) > 1 else self.errors[0]


async def ask(*errors: Exception) -> None:
    await ReaderChannel(Answers(*errors)).request(Operation.RECEIPT, b"", TIMEOUT_S)  # type: ignore[arg-type]


async def test_what_was_refused_before_says_why_no_answer_has_come() -> None:
    assert TIMEOUT_S < BACKOFF_S_MAX
    behind = RequestRefused(FrameError.BEHIND, "this reader is at event 9")
    with pytest.raises(RequestRefused, match="at event 9"):
        await ask(behind, RequestTimedOut("no answer came before the deadline"))
    with pytest.raises(RequestTimedOut):
        await ask(RequestTimedOut("no answer came before the deadline"))
    with pytest.raises(ConnectionFailed, match="it has gone"):
        await ask(behind, ConnectionFailed("it has gone"))
