"""Claim: snapshots and archives are made, listed and brought back from the command line, in words and in JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

from bezant.cli.main import main
from bezant.engine.log.segment import segment_name
from bezant.engine.replica import shard_directory
from bezant.engine.verify import verify

from ..net.archive.conftest import Folder, write_history


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return write_history(tmp_path / "data", 8)


def test_a_snapshot_there_and_back(folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, restored = str(tmp_path / "kept"), tmp_path / "restored"
    assert main(["snapshot", "create", kept, "--data", str(folder.path), "--json"]) == 0
    created = json.loads(capsys.readouterr().out)
    assert created["state_digest"] == folder.state_digest
    assert created["written_bytes"] == created["size_bytes"]
    assert main(["snapshot", "list", kept]) == 0
    assert created["snapshot"] in capsys.readouterr().out
    words = ["snapshot", "restore", kept, "--data", str(restored), "--free-space-floor-mib", "1"]
    assert main(words) == 0
    assert f"start it: bezant serve --data {restored}" in capsys.readouterr().out
    assert verify(restored).state_digest == folder.state_digest
    assert main(words) == 1
    assert "is not empty" in capsys.readouterr().err


def test_a_target_without_snapshots_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["snapshot", "list", str(tmp_path / "none")]) == 0
    assert f"there are no snapshots at {tmp_path / 'none'}" in capsys.readouterr().err


def test_a_damaged_manifest_is_listed_as_such(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept"
    assert main(["snapshot", "create", str(kept), "--data", str(folder.path)]) == 0
    (manifest,) = (kept / "snapshots").iterdir()
    manifest.write_bytes(manifest.read_bytes()[:-9])
    assert main(["snapshot", "list", str(kept)]) == 1
    assert "is damaged" in capsys.readouterr().err


def test_what_is_damaged_is_not_restored_and_the_next_step_is_about_the_snapshot(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, restored = tmp_path / "kept", tmp_path / "restored"
    assert main(["snapshot", "create", str(kept), "--data", str(folder.path)]) == 0
    for file in (kept / "files").iterdir():
        whole = bytearray(file.read_bytes())
        whole[len(whole) // 2] ^= 1
        file.write_bytes(whole)
    words = ["snapshot", "restore", str(kept), "--data", str(restored), "--free-space-floor-mib", "1"]
    assert main(words) == 1
    told = capsys.readouterr().err
    assert "the snapshot: " in told and "is damaged" in told
    assert f"nothing is at {restored}; restore another" in told
    assert not restored.exists()


def test_segments_there_and_back(folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, data = str(tmp_path / "kept"), ["--data", str(folder.path)]
    assert main(["archive", "push", kept, *data, "--json"]) == 0
    pushed = json.loads(capsys.readouterr().out)
    assert pushed["written"] >= 2
    assert main(["archive", "list", kept, *data, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["segments"]
    assert [one["number"] for one in listed] == list(range(1, pushed["written"] + 1))
    (shard_directory(folder.path, 0).path / segment_name(1)).unlink()
    assert main(["verify", *data]) == 1
    fetch = ["archive", "fetch", kept, *data, "--free-space-floor-mib", "1"]
    assert main(fetch) == 0
    assert "1 segments are back" in capsys.readouterr().out
    assert verify(folder.path).state_digest == folder.state_digest
    assert main(fetch) == 0


def test_what_was_erased_leaves_with_the_snapshots_that_have_it(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, data = tmp_path / "kept", ["--data", str(folder.path)]

    def told(*words: str, status: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*words, "--json"]) == status
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    assert main(["metadata", "set", "--account", "ann", "EUR", '{"email":"ann@example.org"}', *data]) == 0
    before = told("snapshot", "create", str(kept), *data)["snapshot"]
    assert told("snapshot", "delete", str(kept), "--erased")["names"] == []
    assert main(["metadata", "erase", "--account", "ann", "EUR", *data]) == 0
    after = told("snapshot", "create", str(kept), *data)["snapshot"]
    listed = told("snapshot", "list", str(kept))["snapshots"]
    assert {one["snapshot"]: one["metadata_erased_since"] for one in listed} == {before: 1, after: 0}
    restored = [*("--data", str(tmp_path / "restored")), "--free-space-floor-mib", "1"]
    assert main(["snapshot", "restore", str(kept), "--snapshot", before, *restored]) == 0
    assert "metadata of 1 accounts and events was erased since, and is left out" in capsys.readouterr().out
    assert main(["metadata", "show", "--account", "ann", "EUR", *restored[:2]]) == 1
    assert told("snapshot", "delete", str(kept), "--erased")["names"] == [before]
    assert not any(b"ann@example.org" in file.read_bytes() for file in (kept / "files").iterdir())
    assert main(["snapshot", "delete", str(kept), "--snapshot", before]) == 1
    assert f"has no snapshot {before}" in capsys.readouterr().err
    assert told("snapshot", "delete", str(kept), "--keep", "1")["names"] == []
    assert told("snapshot", "delete", str(kept), "--snapshot", after)["files"] >= 1
    assert not list((kept / "files").iterdir())
