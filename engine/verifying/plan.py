"""Where a history is cut for its parts to be verified at the same time."""

import os
from collections.abc import Iterable
from typing import Final, NamedTuple

from bezant.engine.checkpoints.check import CheckpointCheck
from bezant.engine.checkpoints.file import Manifest, read_checkpoint
from bezant.engine.checkpoints.folder import CheckpointFolder, checkpoint_name
from bezant.engine.ids.run import RUN_IDS_MAX
from bezant.engine.verifying.part import Place, place_at
from bezant.protocol.errors import CorruptLog, StorageError

EVENTS_IN_PARTS_MIN: Final = 4_000_000
"""Events from which on a history is worth cutting: to start a process takes as long as half a million."""
PART_EVENTS_MIN: Final = 500_000


class Cut(NamedTuple):
    """A checkpoint between two parts: the file, what it says, and the last event (sequence) before it."""

    last_sequence: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    name: str
    place: Place


class Plan(NamedTuple):
    """The cuts, in order. The last one is the newest checkpoint, whose ids all parts before it must add up to."""

    cuts: list[Cut]
    salts: tuple[int, int]


def processes_default() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def plan_parts(
    folder: CheckpointFolder, check: CheckpointCheck, shard: int, part_events_min: int = PART_EVENTS_MIN
) -> Plan | None:
    """Find the cuts among the checkpoints that are whole; None if a history is best verified in one go.

    Every whole checkpoint is one of them, so that all are compared. A damaged file of the others is told in
    ``check.damaged``, as those of checkpoints are, and not used.
    """
    whole = check.manifests
    if not whole:
        return None
    newest = whole[max(whole)]
    if sum(info.count for info in newest.runs) > RUN_IDS_MAX:
        return None
    wanted = sorted(_cut(checkpoint_name(index), manifest) for index, manifest in whole.items())
    cuts: list[Cut] = []
    for sequence, name in folder.cuts().items():
        try:
            manifest = read_checkpoint(folder.directory, name).manifest
            if manifest.shard != shard or manifest.point.next_sequence - 1 != sequence:
                raise CorruptLog(f"{folder.directory.path / name} stands behind another event, or is of another shard")
            cuts.append(_cut(name, manifest))
        except (StorageError, OSError) as error:
            check.damaged.append(f"{error}: verify is slower for it")
    return Plan([*_thin_out(cuts, wanted[0].last_sequence, part_events_min), *wanted], newest.salts)


def _cut(name: str, manifest: Manifest) -> Cut:
    point = manifest.point
    return Cut(point.next_sequence - 1, point.index, name, place_at(point, manifest.state_digest))


def _thin_out(cuts: Iterable[Cut], end: int, part_events_min: int) -> list[Cut]:
    """Those that leave parts of some size, ascending; all lie before `end`."""
    chosen: list[Cut] = []
    begin = 0
    for cut in sorted(cuts, key=lambda cut: cut.last_sequence):
        if cut.last_sequence - begin >= part_events_min and end - cut.last_sequence >= part_events_min:
            chosen.append(cut)
            begin = cut.last_sequence
    return chosen
