"""Claim: the doctor explains the checkpoints of a folder, changes none, and never takes them for the history."""

import shutil

import pytest
import xxhash

from bezant.engine.checkpoints.folder import FOLDER_NAME, checkpoint_name
from bezant.engine.diagnosis import Diagnosis, Finding, FindingKind, Severity, Verdict
from bezant.engine.ids.run import run_name

from ..test_doctor import look
from .test_check import folder_of
from .test_checkpointed_replica import Node, fill, node, settings

__all__ = ["node", "settings"]


def of_kind(diagnosis: Diagnosis, kind: FindingKind) -> list[Finding]:
    return [finding for finding in diagnosis.findings if finding.kind is kind]


@pytest.fixture
def stopped(node: Node) -> Node:
    fill(node, 3)
    node.stop()
    return node


def test_whole_ones_are_listed(stopped: Node) -> None:
    diagnosis = look(stopped.path)
    assert diagnosis.verdict is Verdict.HEALTHY
    assert {finding.kind for finding in diagnosis.findings} == {FindingKind.CLEAN_STOP, FindingKind.CHECKPOINTS}
    (note,) = of_kind(diagnosis, FindingKind.CHECKPOINTS)
    for index in stopped.replica.checkpoints.indexes():
        assert str(index) in note.found
    assert note.severity is Severity.NOTE
    assert "costs the next start time" in note.next_step


def test_without_any_there_is_nothing_to_say(stopped: Node) -> None:
    shutil.rmtree(folder_of(stopped).path)
    assert {finding.kind for finding in look(stopped.path).findings} == {FindingKind.CLEAN_STOP}


@pytest.mark.parametrize("what", ["header", "array", "run", "no run"])
def test_a_damaged_one_is_a_warning_with_its_remedy(stopped: Node, what: str) -> None:
    manifest = stopped.replica.checkpoints.newest_manifest()
    checkpoint, run = checkpoint_name(manifest.point.index), run_name(manifest.runs[0].number)
    path = folder_of(stopped).path / (run if "run" in what else checkpoint)
    if what == "no run":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[{"header": 9, "array": -1, "run": -1}[what]] ^= 1
        path.write_bytes(data)
    diagnosis = look(stopped.path)
    assert diagnosis.verdict is Verdict.HEALTHY
    (finding,) = of_kind(diagnosis, FindingKind.CHECKPOINT_DAMAGED)
    assert (finding.severity, finding.file) == (Severity.WARNING, f"shard-0000/{FOLDER_NAME}/{checkpoint}")
    assert "passes over it" in finding.meaning
    assert "delete the whole folder" in finding.next_step
    unlisted = {finding.file for finding in of_kind(diagnosis, FindingKind.RUN_UNLISTED)}
    assert unlisted == (set() if what == "no run" else {f"shard-0000/{FOLDER_NAME}/{run}"})


def test_what_was_under_way_is_told(stopped: Node) -> None:
    folder = folder_of(stopped).path
    (folder / "checkpoint-0000000999.new").write_bytes(b"half")
    (folder / run_name(999)).write_bytes(b"for nobody")
    (folder / "notes.txt").write_bytes(b"somebody's")
    diagnosis = look(stopped.path)
    assert diagnosis.verdict is Verdict.HEALTHY
    assert "removes it" in of_kind(diagnosis, FindingKind.UNFINISHED_FILE)[0].next_step
    assert of_kind(diagnosis, FindingKind.RUN_UNLISTED)[0].file.endswith(run_name(999))
    assert len(diagnosis.findings) == 4


def test_one_of_a_newer_version_is_told_and_keeps_nobody_from_starting(stopped: Node) -> None:
    index = stopped.replica.checkpoints.indexes()[-1]
    path = folder_of(stopped).path / checkpoint_name(index)
    data = bytearray(path.read_bytes())
    data[8] = 9
    data[4088:4096] = xxhash.xxh3_64_intdigest(bytes(data[:4088])).to_bytes(8, "little")
    path.write_bytes(data)
    diagnosis = look(stopped.path)
    assert diagnosis.verdict is Verdict.HEALTHY
    (finding,) = of_kind(diagnosis, FindingKind.OTHER_FORMAT)
    assert "format 9" in finding.found
    assert "passes over it" in finding.meaning
