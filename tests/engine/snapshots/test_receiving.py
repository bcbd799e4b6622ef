"""Claim: what a member is sent without having asked for it takes up no memory."""

from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from bezant.engine.checkpoints.checkpointer import LedgerSettings
from bezant.engine.log.storage import Directory
from bezant.engine.snapshots.jobs import JOBS_MAX, Jobs
from bezant.engine.snapshots.receiving import Facts, Receiver
from bezant.protocol.transfer_messages import PART_SIZE_MAX, PARTS_ASKED_MAX, PartReply, SnapshotOffer, checksum_of

SIZE = 100 * PART_SIZE_MAX


class SlowDisk(Executor):
    """A helper that gets nothing done."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        self.futures.append(Future())
        return self.futures[-1]


def test_parts_that_nobody_asked_for_are_not_kept(tmp_path: Path) -> None:
    disk = SlowDisk()
    asked: list[tuple[int, int, int]] = []
    receiver = Receiver(
        SnapshotOffer(1, 2, 1, 77, 10, 1, SIZE),
        Directory(tmp_path),
        Facts(1, 0, 1 << 20, LedgerSettings(16, 16, 16), 0),
        Jobs(disk),
        ask_part=lambda *request: asked.append(request),
        ask_entries=lambda *_: None,
    )
    part = memoryview(bytes(PART_SIZE_MAX))
    for number in range(SIZE // PART_SIZE_MAX):
        receiver.on_tick()
        receiver.on_part(PartReply(1, 2, 1, 77, 0, number * PART_SIZE_MAX, checksum_of(part)), part)
    assert JOBS_MAX <= len(disk.futures) <= JOBS_MAX + PARTS_ASKED_MAX
    assert sum(size for _, _, size in asked) == len(disk.futures) * PART_SIZE_MAX
    receiver.discard()
