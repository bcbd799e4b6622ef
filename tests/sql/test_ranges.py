"""Claim: a part of the history is the same rows as in the whole of it, and what is before it is not even read; what is
asked of a folder while its node writes is all as of one position; rows come as they are read."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import bezant
from bezant.cli.main import main
from bezant.engine.replica import open_replica
from bezant.engine.tables.history import HistoryTables
from bezant.net.archive.segments import drop_segments, push_segments
from bezant.net.archive.store import LocalStore
from bezant.protocol.errors import ArchiveUnavailable
from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import position_of
from bezant.sql import events as event_table
from bezant.sql.database import Database, event_stream

from ..engine.commands import join, opening, opening_world, transfer, transfers
from ..net.archive.conftest import SETTINGS, Folder, close_cleanly, make_checkpoint

BATCHES = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Some segments, a checkpoint with open holds, and behind it new accounts, captures and some segments more."""
    path = tmp_path_factory.mktemp("ranges") / "data"
    holds = join(*(transfer("world", "ann", 5, kind=int(CommandKind.HOLD), id_tail=1 << 40 | n) for n in range(4)))
    captures = holds.copy()
    captures["kind"], captures["reference_head"] = int(CommandKind.CAPTURE), holds["id_head"]
    captures["reference_tail"], captures["id_tail"] = holds["id_tail"], holds["id_tail"] + 100
    replica = open_replica(path, settings=SETTINGS)
    for part in (opening_world("ann", "bob"), holds, *(transfers("world", "ann", 100, 7) for _ in range(BATCHES))):
        assert not replica.execute(part).results["code"].any()
        replica.write_group()
    found = Folder(path, replica.ledger.digest(), replica.log.chain_hash.hex(), replica.log.last_index)
    close_cleanly(replica)
    make_checkpoint(found)
    replica = open_replica(path, settings=SETTINGS)
    for part in (captures, opening("eve"), *(transfers("ann", "eve", 100, 1) for _ in range(BATCHES // 2))):
        assert not replica.execute(part).results["code"].any()
        replica.write_group()
    close_cleanly(replica)
    return found


def rows_of(tables: HistoryTables) -> Any:
    schema, batches = event_stream(tables, None)
    return pa.Table.from_batches(list(batches()), schema=schema)


LAST = 3 + 4 + 100 * BATCHES + 4 + 1 + 100 * (BATCHES // 2)
CHECKPOINT = 3 + 4 + 100 * BATCHES


@pytest.mark.parametrize("after", [0, 1, 500, CHECKPOINT - 1, CHECKPOINT, CHECKPOINT + 2, LAST - 150, LAST])
@pytest.mark.parametrize("until", [None, CHECKPOINT - 10, CHECKPOINT, CHECKPOINT + 3, LAST - 50])
def test_a_part_is_the_same_rows(folder: Folder, after: int, until: int | None) -> None:
    position = None if until is None else position_of(0, until)
    everything = rows_of(HistoryTables(folder.path, position=position))
    assert len(everything) == (until or LAST)
    found = rows_of(HistoryTables(folder.path, position=position, after_position=position_of(0, after)))
    assert found.equals(everything.slice(min(after, len(everything))))
    if after < len(everything):
        time_ns = everything["time"].cast("int64")[after].as_py()
        first = int(np.searchsorted(everything["time"].cast("int64").to_numpy(), time_ns))
        since = rows_of(HistoryTables(folder.path, position=position, since_ns=time_ns))
        assert since.equals(everything.slice(first))


async def test_what_is_before_is_not_read(folder: Folder, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(folder.path, data)
    store = LocalStore(tmp_path / "kept")
    await push_segments(data, store)
    everything = rows_of(HistoryTables(data))
    assert (await drop_segments(data, store, keep=2)).dropped
    (tmp_path / "kept").rename(tmp_path / "away")
    tables = HistoryTables(data, after_position=position_of(0, CHECKPOINT - 50))
    assert rows_of(tables).equals(everything.slice(CHECKPOINT - 50))
    since_ns = everything["time"].cast("int64")[CHECKPOINT - 50].as_py()
    assert len(rows_of(HistoryTables(data, since_ns=since_ns))) >= LAST - CHECKPOINT + 50
    with pytest.raises(ArchiveUnavailable, match=f"in the archive {tmp_path}/kept"):
        rows_of(HistoryTables(data))
    (tmp_path / "away").rename(tmp_path / "kept")
    assert rows_of(HistoryTables(data)).equals(everything)


def test_the_command_takes_a_range(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sql", "select min(sequence) a, count(*) n from events", "--data", str(folder.path), "--json"]
    assert main([*words, "--after", str(position_of(0, 600))]) == 0
    assert json.loads(capsys.readouterr().out) == {"a": 601, "n": LAST - 600}
    assert main([*words, "--since", "2200-01-01"]) == 0
    assert json.loads(capsys.readouterr().out) == {"a": None, "n": 0}
    assert main([*words, "--after", str(position_of(0, LAST + 1))]) == 1


def test_one_position_while_the_node_writes(tmp_path: Path) -> None:
    """Every figure of a query is of the same position, which rises from query to query."""
    data = tmp_path / "data"
    query = (
        "select (select count(*) from events) events, (select max(sequence) from events) last, "
        "(select sum(moved_minor) from events where debit = 'world') moved, "
        "(select balance_minor from accounts where name = 'ann') balance"
    )

    def ask() -> dict[str, Any]:
        database = Database(HistoryTables(data))
        try:
            (row,) = [row for batch in database.rows_of(database.query(query)) for row in batch.to_pylist()]
        finally:
            database.close()
        return dict(row)

    async def write_and_ask() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async with bezant.open(data) as wallet:
            await wallet.open_account("world", "EUR", limit=bezant.UNLIMITED)
            await wallet.open_account("ann", "EUR")
            await wallet.transfer("world", "ann", "1.00", "EUR")

            async def write(task: "asyncio.Future[dict[str, Any]]") -> int:
                written = 0
                while not task.done():
                    await wallet.submit(transfers("world", "ann", 50, 3))
                    written += 1
                return written

            for _ in range(5):
                asking = asyncio.ensure_future(asyncio.to_thread(ask))
                assert await write(asking) > 1
                found.append(asking.result())
        return found

    answers = asyncio.run(write_and_ask())
    for answer in answers:
        assert answer["events"] == answer["last"]
        assert answer["moved"] == answer["balance"] == 100 + 3 * (answer["events"] - 3)
    counts = [answer["events"] for answer in answers]
    assert counts == sorted(set(counts))


MANY = 1_000_000
BATCH = 10_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A million events, some 190 MB."""
    path = tmp_path_factory.mktemp("large") / "data"
    replica = open_replica(path)
    replica.execute(opening_world("ann"))
    part = transfers("world", "ann", BATCH, 2)
    for number in range(MANY // BATCH):
        part["id_head"] = number + 1
        assert not replica.execute(part).results["code"].any()
        replica.write_group()
    close_cleanly(replica)
    yield path
    shutil.rmtree(path)


def test_a_large_history_streams_by(large: Path) -> None:
    tables = HistoryTables(large)
    database = Database(tables)
    try:
        (row,) = [
            row
            for batch in database.rows_of(
                database.query("select count(*) n, sum(moved_minor) moved, max(credit_balance_minor) top from events")
            )
            for row in batch.to_pylist()
        ]
        assert row == {"n": MANY + 2, "moved": 2 * MANY, "top": 2 * MANY}
    finally:
        database.close()
    schema, batches = event_stream(tables, frozenset({"sequence"}))
    stream = batches()
    taken, before = next(stream), pa.total_allocated_bytes()
    assert schema.names == ["sequence"]
    for batch in stream:
        taken = batch
        assert pa.total_allocated_bytes() <= before + (1 << 20)  # No more than a batch is held at a time.
    assert taken["sequence"][-1].as_py() == MANY + 2


def test_all_columns_are_those_of_the_table(folder: Folder) -> None:
    assert rows_of(HistoryTables(folder.path)).schema.names == [*event_table.COLUMNS]
