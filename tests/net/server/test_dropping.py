"""Claim: a fault that turns up as archived segments go from the disk ends the node, and a disk that fails does not."""

import pytest

from bezant.engine.log.archived import ARCHIVED_NAME
from bezant.net.server import dropping
from bezant.protocol.errors import BezantError, LedgerError, StorageError

from .conftest import StartNode
from .node import until


@pytest.mark.parametrize("error", [StorageError("the disk fails"), LedgerError("it cannot be")], ids=["disk", "bug"])
async def test_what_fails_as_segments_go(
    start_node: StartNode,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: BezantError,
) -> None:
    """Of a bug nobody heard but the event loop."""
    ended: list[BaseException] = []

    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(dropping, "LOOK_S", 0.01)
    monkeypatch.setattr(dropping, "end_after_bug", ended.append, raising=False)
    monkeypatch.setattr(dropping, "remove_archived", fail)
    node = await start_node()
    (node.path / "shard-0000" / ARCHIVED_NAME).write_bytes(b"")
    monkeypatch.setattr(node.replica.log.archive, "load", lambda: None)
    await until(lambda: bool(ended) or "segments that an archive has stay here: the disk fails" in caplog.text)
    assert ended == ([error] if isinstance(error, LedgerError) else [])
