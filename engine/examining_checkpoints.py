"""What a look into the folder ``checkpoints`` of a shard finds; see `bezant.engine.doctor`.

Nothing here is ever damage to a history: checkpoints are made from it, and made again from it when they are lost. So no
finding is more than a warning.
"""

from pathlib import PurePath
from typing import Final

from bezant.engine.checkpoints.file import Manifest, read_checkpoint
from bezant.engine.checkpoints.folder import FOLDER_NAME, CheckpointFolder, checkpoint_name
from bezant.engine.diagnosis import FindingKind, Findings, Severity
from bezant.engine.ids.run import RUN_NAME, run_name
from bezant.engine.ids.run_set import open_runs
from bezant.engine.log.storage import UNFINISHED_SUFFIX, Directory
from bezant.protocol.errors import StorageError, UnsupportedFormat

_COSTS: Final = (
    "costs the next start time and nothing else, as long as all of the history is here or in an archive that can be "
    "read: a start then needs it from the beginning"
)
_DELETE: Final = (
    f"nothing, or stop the node and delete the whole folder `{FOLDER_NAME}`: they are made anew from the history. That "
    + _COSTS
)


def examine_checkpoints(shard_directory: Directory, shard: int, findings: Findings, *, in_use: bool) -> None:
    """Add what is in the folder. Reads all of every checkpoint; of runs of ids not the blocks, as a start does."""
    folder = CheckpointFolder(shard_directory)
    if not folder.directory.path.is_dir():
        return
    whole: list[int] = []
    listed: set[int] = set()
    for index in folder.indexes():
        manifest = _examine(folder, index, shard, findings)
        if manifest is not None:
            whole.append(index)
            listed.update(info.number for info in manifest.runs)
    if whole:
        findings.add(
            Severity.NOTE,
            FindingKind.CHECKPOINTS,
            FOLDER_NAME,
            found=f"whole checkpoints behind the entries {', '.join(map(str, whole))}, with {len(listed)} files of ids",
            meaning=f"a start goes on from entry {whole[-1]} and reads only what follows",
            next_step=f"nothing; deleting the folder {_COSTS}",
        )
    if not in_use:
        _examine_others(folder.directory, listed, findings)


def _examine(folder: CheckpointFolder, index: int, shard: int, findings: Findings) -> Manifest | None:
    """The manifest of a checkpoint if it is whole and so are its runs; else a finding."""
    name = checkpoint_name(index)
    try:
        manifest = read_checkpoint(folder.directory, name).manifest
        if (manifest.point.index, manifest.shard) != (index, shard):
            raise StorageError(f"it stands behind entry {manifest.point.index} of shard {manifest.shard}")
        open_runs(folder.directory, manifest.identity, manifest.runs, 0)
    except UnsupportedFormat as error:
        findings.add(
            Severity.WARNING,
            FindingKind.OTHER_FORMAT,
            f"{FOLDER_NAME}/{name}",
            found=str(error),
            expected="what this version of Bezant knows",
            meaning="another version wrote it; a start of this one passes over it, and needs longer",
            next_step=_DELETE,
        )
    except (StorageError, OSError) as error:
        findings.add(
            Severity.WARNING,
            FindingKind.CHECKPOINT_DAMAGED,
            f"{FOLDER_NAME}/{name}",
            found=str(error),
            expected="a checkpoint that is whole, and the files of ids that it lists",
            meaning="the history is not touched by it: a start passes over it, goes on from an older one or from the "
            "beginning, and needs longer",
            next_step=_DELETE,
        )
    else:
        return manifest
    return None


def _examine_others(directory: Directory, listed: set[int], findings: Findings) -> None:
    """Add what no whole checkpoint needs."""
    for name in directory.names():
        match = RUN_NAME.fullmatch(name)
        place = str(PurePath(FOLDER_NAME, name))
        if name.endswith(UNFINISHED_SUFFIX):
            findings.add(
                Severity.NOTE,
                FindingKind.UNFINISHED_FILE,
                place,
                found="a file that was being made",
                expected="none",
                meaning="a checkpoint or a merge of ids was under way when the process ended; nothing in it was used",
                next_step="nothing: whoever makes the next checkpoint removes it",
            )
        elif match is not None and run_name(int(match[1])) == name and int(match[1]) not in listed:
            findings.add(
                Severity.NOTE,
                FindingKind.RUN_UNLISTED,
                place,
                found="a file of ids that no whole checkpoint lists",
                expected="none",
                meaning="it was written for a checkpoint that was not finished, or that is damaged",
                next_step="nothing: it is removed when the next checkpoint has been made",
            )
