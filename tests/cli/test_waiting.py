"""Claim: a question about the past that comes right behind the start of a node waits for the reader, for a bounded
time, and says so."""

import asyncio
from typing import Any, cast

import pytest

from bezant.cli import session
from bezant.cli.errors import CommandFailed
from bezant.cli.session import DEFAULT_TIMEOUT_S, run_async
from bezant.net.client import sharding_readers
from bezant.net.client.sharding_readers import find_silent_reader
from bezant.protocol.errors import AccessDenied, BezantError, ConnectionFailed, RequestRefused
from bezant.protocol.frames import FrameError


class Readers:
    """What those who ask whether there is one are told, one after the other; the last for ever."""

    def __init__(self, *told: str) -> None:
        self.told = list(told)

    async def find(self, _channel: Any, _timeout_s: float) -> str:
        return self.told.pop(0) if len(self.told) > 1 else self.told[0]


def waited(monkeypatch: pytest.MonkeyPatch, readers: Readers, timeout_s: float) -> None:
    monkeypatch.setattr(sharding_readers, "find_silent_reader", readers.find)
    monkeypatch.setattr(session, "READER_PAUSE_S", 0.01)

    class Wallet:
        channel = None

    run_async(session._await_readers(cast(Any, Wallet()), timeout_s))


def test_it_is_waited_for_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited(monkeypatch, Readers("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1", ""), DEFAULT_TIMEOUT_S)
    assert capsys.readouterr().err.count("waiting for the reader at 127.0.0.1:1") == 1
    waited(monkeypatch, Readers(""), DEFAULT_TIMEOUT_S)
    assert capsys.readouterr().err == ""


def test_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandFailed, match=r"127\.0\.0\.1:1.*within 0\.05 s"):
        waited(monkeypatch, Readers("127.0.0.1:1"), 0.05)
    monkeypatch.setattr(session, "READER_S_MAX", 0.07)
    with pytest.raises(CommandFailed, match=r"within 0\.07 s"):
        waited(monkeypatch, Readers("127.0.0.1:1"), DEFAULT_TIMEOUT_S)


@pytest.mark.parametrize(
    ("answer", "is_silent"),
    [
        (None, False),
        (ConnectionFailed("refused"), True),
        (RequestRefused(FrameError.OVERLOADED, "the history is being opened"), True),
        (AccessDenied(FrameError.FORBIDDEN, "no"), False),
    ],
)
def test_who_answers_no_questions_yet_is_silent(
    monkeypatch: pytest.MonkeyPatch, answer: BezantError | None, is_silent: bool
) -> None:
    async def ask(*_: Any) -> bytes:
        if answer is not None:
            raise answer
        return b""

    monkeypatch.setattr(sharding_readers, "ask_node", ask)
    monkeypatch.setattr(sharding_readers, "reader_address", lambda _: "127.0.0.1:1")
    monkeypatch.setattr(sharding_readers, "TcpChannel", object)
    assert asyncio.run(find_silent_reader(cast(Any, object()), 1.0)) == ("127.0.0.1:1" if is_silent else "")
