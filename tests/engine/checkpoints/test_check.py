"""Claim: verify compares every checkpoint with the history, and tells a wrong one from a damaged one."""

import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bezant.engine.checkpoints.file import Manifest, read_checkpoint, write_checkpoint
from bezant.engine.checkpoints.folder import CHECKPOINTS_KEPT, FOLDER_NAME, checkpoint_name
from bezant.engine.ids.run import run_name, write_run
from bezant.engine.ids.run_set import Run
from bezant.engine.log.storage import Directory
from bezant.engine.verify import verify
from bezant.protocol.errors import CorruptLog
from bezant.protocol.records import Records

from ..commands import join, opening_world, transfers
from .test_checkpointed_replica import Node, fill, node, settings, some_commands

__all__ = ["node", "settings"]


def folder_of(node: Node) -> Directory:
    return Directory(node.path / "shard-0000" / FOLDER_NAME)


def rewrite(node: Node, change: Callable[[Manifest], dict[str, object]]) -> None:
    """Write the newest checkpoint again with something else in its manifest, and checksums that are right."""
    index = node.replica.checkpoints.newest_manifest().point.index
    checkpoint = read_checkpoint(folder_of(node), checkpoint_name(index))
    manifest = msgspec.structs.replace(checkpoint.manifest, **change(checkpoint.manifest))
    write_checkpoint(
        folder_of(node),
        checkpoint_name(index),
        checkpoint.image,
        shard=0,
        point=manifest.point,
        salts=manifest.salts,
        runs=manifest.runs,
        run_number_next=manifest.run_number_next,
        state_digest=manifest.state_digest,
        configuration=manifest.configuration,
    )


@pytest.mark.parametrize("seed", range(3))
def test_checkpoints_of_any_history_are_as_it_makes_them(node: Node, seed: int) -> None:
    """Ids as well, with holds whose fate came later, recalled ids, and runs that were merged."""
    choice = random.Random(seed)
    sent: list[Records] = [opening_world("ann", "bob")]
    holds: list[Records] = []
    node.execute(join(opening_world("ann", "bob"), transfers("world", "ann", 3, 500)))
    while node.checkpoints < 4:
        node.execute(some_commands(choice, sent, holds))
        if node.replica.frozen_index:
            node.make_checkpoint()
            while node.worker is not None and node.worker.merge_step():
                pass
    node.stop()
    report = verify(node.path)
    assert (report.checkpoints, report.checkpoints_damaged) == (CHECKPOINTS_KEPT, ())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda manifest: {"state_digest": "0" * 64}, "has another state than the history"),
        (
            lambda manifest: {"point": msgspec.structs.replace(manifest.point, chain_hash=bytes(32))},
            "was made of another history",
        ),
        (lambda manifest: {"runs": manifest.runs[1:]}, "lists other ids than the history"),
    ],
    ids=["state", "history", "ids"],
)
def test_a_checkpoint_that_is_wrong_is_named_and_the_history_is_not_blamed(
    node: Node, change: Callable[[Manifest], dict[str, object]], words: str
) -> None:
    fill(node, 2)
    node.stop()
    rewrite(node, change)
    name = checkpoint_name(node.replica.checkpoints.newest_manifest().point.index)
    with pytest.raises(CorruptLog, match=f"{name} .*{words}.*the checkpoint is wrong, not the history"):
        verify(node.path)


def test_one_id_with_another_fate_is_found(node: Node) -> None:
    fill(node, 1)
    node.stop()
    manifest = node.replica.checkpoints.newest_manifest()
    (info,) = manifest.runs
    run = Run.open(folder_of(node), manifest.identity, info, load_filter=False)
    entries = np.concatenate([run.words[block, 1:511].reshape(-1, 2) for block in range(info.block_count)])
    entries = entries[: info.count].copy()
    entries[7, 1] ^= 1 << 60
    written = write_run(folder_of(node), manifest.identity, info.number, entries[:, 0], entries[:, 1], info.time_ms_max)
    rewrite(node, lambda _: {"runs": (written,)})
    with pytest.raises(CorruptLog, match="lists other ids"):
        verify(node.path)


@pytest.mark.parametrize("what", ["checkpoint", "block", "missing"])
def test_damage_is_told_and_is_no_failure_of_the_history(node: Node, what: str) -> None:
    fill(node, 3)
    digest = node.replica.ledger.digest()
    node.stop()
    manifest = node.replica.checkpoints.newest_manifest()
    name = checkpoint_name(manifest.point.index) if what == "checkpoint" else run_name(manifest.runs[0].number)
    path = folder_of(node).path / name
    if what == "missing":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[100] ^= 1  # in a run: in a block, which a start does not read
        path.write_bytes(data)
    before = {file: file.read_bytes() for file in Path(node.path).rglob("*") if file.is_file()}
    report = verify(node.path)
    assert report.state_digest == digest
    assert len(report.checkpoints_damaged) == 1
    assert name in report.checkpoints_damaged[0]
    assert report.checkpoints == CHECKPOINTS_KEPT - 1
    assert {file: file.read_bytes() for file in Path(node.path).rglob("*") if file.is_file()} == before


def test_a_log_that_lost_its_end_is_found_by_its_checkpoint(node: Node) -> None:
    fill(node, 1)
    node.stop()
    point = node.replica.checkpoints.newest_manifest().point
    segment = node.path / "shard-0000" / f"segment-{point.segment_number:010d}"
    data = bytearray(segment.read_bytes())
    data[point.entry_offset :] = bytes(len(data) - point.entry_offset)
    segment.write_bytes(data)
    control = node.path / "shard-0000" / "control"
    control.write_bytes(bytes(control.stat().st_size))
    with pytest.raises(CorruptLog, match=f"made when entry {point.index} was durable"):
        verify(node.path)
