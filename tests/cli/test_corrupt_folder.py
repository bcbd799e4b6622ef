"""Claim: no command repairs a corrupt history, in silence or at all: each says where it is damaged, and stops there."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bezant.cli.main import main
from bezant.engine.log.segment import segment_name
from bezant.engine.replica import ReplicaSettings, open_replica, shard_directory
from bezant.protocol.records import ENTRY_HEADER_SIZE, SEGMENT_HEADER_SIZE

from ..engine.commands import opening_world, transfers

SETTINGS = ReplicaSettings(segment_size=1 << 16, free_space_floor=0, accounts_max=64, holds_max=64)
LINES = [
    "serve --data {data} --listen 127.0.0.1:0",
    "verify --data {data}",
    "accounts --data {data}",
    "balance ann EUR --data {data}",
    "transfer world ann 1.00 EUR --data {data}",
    "open bob EUR --data {data}",
]
Damage = Callable[[Path], None]


def change(offset: int, count: int) -> Damage:
    """Other bytes than there are, whatever is there: logs have random numbers."""

    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[offset : offset + count] = (byte ^ 0xFF for byte in data[offset : offset + count])
        path.write_bytes(data)

    return damage


def zeros_from(offset: int) -> Damage:
    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[offset : offset + 20_000] = bytes(20_000)
        path.write_bytes(data)

    return damage


FIRST_BODY = SEGMENT_HEADER_SIZE + ENTRY_HEADER_SIZE + 40
DAMAGES: dict[str, tuple[Damage, str]] = {
    "a byte of an entry": (change(FIRST_BODY, 1), "segment-0000000001, offset 4096"),
    "zeros instead of the history": (zeros_from(SEGMENT_HEADER_SIZE), "segment-0000000001, offset 4096"),
    "a byte of the segment header": (change(30, 1), "segment-0000000001"),
    "a segment that is gone": (Path.unlink, "segment"),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A history over two segments, whose node stopped in order."""
    folder = tmp_path / "data"
    replica = open_replica(folder, settings=SETTINGS)
    replica.execute(opening_world("ann"))
    for _ in range(4):
        replica.execute(transfers("world", "ann", 100))
        replica.write_group()
    replica.ledger.check_invariants()
    assert np.all(replica.log.read_events(np.arange(1, 403))["result"] == 0)
    replica.close()
    return folder


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


@pytest.mark.parametrize("line", LINES, ids=[line.split()[0] for line in LINES])
@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_refused_and_left_as_it_is(
    data: Path, capsys: pytest.CaptureFixture[str], name: str, line: str
) -> None:
    damage, where = DAMAGES[name]
    damage(shard_directory(data, 0).path / segment_name(1))
    damaged = files_of(data)
    for _ in range(2):
        assert main(line.format(data=data).split()) == 1
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.splitlines()[-1].startswith("bezant: the data folder: ")
        assert where in told.err.splitlines()[-1]
        assert files_of(data) == damaged
