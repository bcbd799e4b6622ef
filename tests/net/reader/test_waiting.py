"""Claim: however many queries wait for a reader to come further, others are answered meanwhile."""

from pathlib import Path

import pytest

from bezant.net.reader import server as server_module
from bezant.net.reader.parts import Parts
from bezant.net.reader.projecting import Awaits
from bezant.protocol.frames import FrameError, Operation, encode_frame

from .rig import Rig
from .test_projecting import Batches

AHEAD = 5
WAITING_MAX = 3


def answer(body: bytes, _published_index: int) -> bytes:
    if body:
        raise Awaits(sequence=AHEAD)
    return b"known"


async def test_those_who_wait_keep_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path / "data", monkeypatch)
    monkeypatch.setattr(server_module, "make_parts", lambda *_: Parts([Batches()], {Operation.TOTALS: answer}, {}))
    monkeypatch.setattr(server_module, "QUERIES_MAX", WAITING_MAX + 1)
    monkeypatch.setattr(server_module, "WAITING_MAX", WAITING_MAX)
    monkeypatch.setattr(server_module, "WAIT_S_MAX", 1.0)
    rig.history.write_filler()
    rig.history.publish()
    await rig.start()
    try:
        waiting, other = await rig.connect(), await rig.connect()
        for number in range(WAITING_MAX + 1):
            await waiting.send(encode_frame(Operation.TOTALS, 100 + number, b"later"))
        refused = await waiting.reply()
        assert (refused.request_id, refused.error.code) == (100 + WAITING_MAX, FrameError.BEHIND)
        assert (await other.ask(Operation.TOTALS)).body == b"known"
        assert sorted(reply.request_id for reply in await waiting.replies(WAITING_MAX)) == [100, 101, 102]
        assert (await waiting.ask(Operation.TOTALS, b"later")).error.code == FrameError.BEHIND
    finally:
        await rig.stop()
