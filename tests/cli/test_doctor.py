"""`bezant doctor`: words for people, JSON for programs, and an exit status that is the verdict."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bezant.cli.main import main
from bezant.engine import doctor
from bezant.engine.replica import IDS_MEMORY_BYTES_MIN, ReplicaSettings, open_replica

from ..engine.commands import opening_world

SEGMENT = "shard-0000/segment-0000000001"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A small ledger whose node has stopped."""
    folder = tmp_path / "data"
    settings = ReplicaSettings(
        segment_size=65_536,
        free_space_floor=0,
        accounts_max=1024,
        holds_max=64,
        ids_memory_bytes=IDS_MEMORY_BYTES_MIN,
    )
    replica = open_replica(folder, settings=settings)
    replica.execute(opening_world("ann"))
    replica.write_group()
    replica.close()
    return folder


@pytest.fixture
def run(capsys) -> Callable[..., tuple[int, str]]:
    """Runs `bezant doctor` on a folder: (exit status, stdout)."""

    def examine(folder: Path, *words: str) -> tuple[int, str]:
        status = main(["doctor", "--data", str(folder), *words])
        return status, capsys.readouterr().out

    return examine


def break_first_entry(data: Path) -> None:
    with (data / SEGMENT).open("r+b") as file:
        file.seek(4096 + 60)
        file.write(b"\xff")


def test_a_healthy_folder(data: Path, run) -> None:
    status, out = run(data)
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == f"{data}: healthy"
    assert "  good entries  2" in lines
    assert "  accounts      2" in lines
    assert "note: clean stop" in lines


def test_a_damaged_folder(data: Path, run) -> None:
    break_first_entry(data)
    status, out = run(data)
    assert status == 1
    assert out.splitlines()[0] == f"{data}: DAMAGED"
    assert f"damage: rot in {SEGMENT}, offset 4096" in out
    for title in ("found", "expected", "means", "next"):
        assert f"\n  {title:<14}" in out


def test_json_has_every_finding(data: Path, run) -> None:
    break_first_entry(data)
    status, out = run(data, "--json")
    assert (status, out.count("\n")) == (1, 1)
    told = json.loads(out)
    assert (told["verdict"], told["entries"]) == ("damaged", 0)
    rot = next(finding for finding in told["findings"] if finding["kind"] == "rot")
    assert (rot["severity"], rot["file"], rot["offset"]) == ("damage", SEGMENT, 4096)
    assert "index 1" in rot["expected"]


def test_a_newer_folder(data: Path, run) -> None:
    with (data / SEGMENT).open("r+b") as file:
        file.seek(16)
        file.write((9).to_bytes(4, "little"))
    status, out = run(data)
    assert status == 1
    assert "another version" in out.splitlines()[0]


def test_what_is_not_a_data_folder_is_a_wrong_command_line(tmp_path: Path, run) -> None:
    status, out = run(tmp_path / "nowhere")
    assert status == 2
    assert out.splitlines()[0].endswith("nowhere: not a data folder")
    assert not (tmp_path / "nowhere").exists()


def test_the_folder_of_a_running_node(start_node, run) -> None:
    with start_node() as node:
        status, out = run(node.data, "--json")
        told = json.loads(out)
        assert (status, told["verdict"], told["holder"]) == (0, "in_use", str(node.process.pid))
        assert node.stop() == 0
    status, out = run(node.data, "--json")
    assert (status, json.loads(out)["clean_stop"]) == (0, True)


def test_the_floor_is_the_one_of_the_node(data: Path, run) -> None:
    status, out = run(data, "--free-space-floor-mib", "999999999")
    assert status == 0
    assert "warning: disk nearly full" in out


def test_a_file_that_cannot_be_read_is_one_line(data: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "control")

    monkeypatch.setattr(doctor, "examine", refuse)
    assert main(["doctor", "--data", str(data)]) == 1
    assert capsys.readouterr().err.startswith("bezant: the disk: control cannot be read: Permission denied")
