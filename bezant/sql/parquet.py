"""The tables as Parquet files in a new folder, which is there whole or not at all.

``events/events-FIRST-LAST.parquet`` for each span of events, named by sequences, with statistics of every column so
that a reader passes over what it does not need; ``accounts``, ``holds`` and ``currencies`` a file each. All is written
durably under a temporary name beside, which then becomes the folder.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from bezant.engine.tables.history import HistoryTables
from bezant.protocol.errors import UsageError
from bezant.sql.database import event_stream
from bezant.sql.states import STATES

SPAN_EVENTS: Final = 1 << 20
"""Events in a file, at most."""
GROUP_ROWS: Final = 1 << 17
"""Rows in a row group, at most: what has statistics of its own, and what is held in memory."""
_DIGITS: Final = 16
"""Of a sequence in a file's name: 52 bits."""


class Exported(NamedTuple):
    """What was written."""

    events: int
    files: int
    size_bytes: int


def export(history: HistoryTables, folder: Path, on_progress: Callable[[int], None]) -> Exported:
    """Write all tables; `on_progress` is told of the events written.

    Raises `UsageError` if the folder is there already, `OSError`, and what reading the history raises.
    """
    if os.path.lexists(folder):
        raise UsageError(f"{folder} is there already, and nothing is overwritten")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f"{folder.name}.unfinished-", dir=folder.parent))
    try:
        made.chmod(0o755)
        done = _write(history, made, on_progress)
        if os.path.lexists(folder):  # a rename would replace an empty folder
            raise UsageError(f"{folder} has come to be there meanwhile, and nothing is overwritten")
        made.rename(folder)
        _sync(folder.parent)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return done


def _write(history: HistoryTables, folder: Path, on_progress: Callable[[int], None]) -> Exported:
    notes = {
        b"bezant.log_id": history.survey.public_id.encode(),
        b"bezant.shard": str(history.shard).encode(),
    }
    events = folder / "events"
    events.mkdir()
    count = _write_events(history, events, notes, on_progress)
    state = history.state()
    for name, (schema, batches) in STATES.items():
        with _Writer(folder / f"{name}.parquet", schema(history.decimals_max).with_metadata(notes)) as writer:
            for batch in batches(state, history.shard, history.decimals_max):
                writer.write(batch)
    for path in (events, folder):
        _sync(path)
    files = list(folder.rglob("*.parquet"))
    return Exported(count, len(files), sum(path.stat().st_size for path in files))


def _write_events(
    history: HistoryTables, folder: Path, notes: dict[bytes, bytes], on_progress: Callable[[int], None]
) -> int:
    schema, batches = event_stream(history, None)
    schema = schema.with_metadata(notes)
    first, pieces = 1, _cut(batches())
    written = 0
    for span in pieces:
        path = folder / "events.part"
        with _Writer(path, schema) as writer:
            for batch in span:
                writer.write(batch)
                written += batch.num_rows
                on_progress(written)
        path.rename(folder / f"events-{first:0{_DIGITS}d}-{written:0{_DIGITS}d}.parquet")
        first = written + 1
    if not written:
        with _Writer(folder / "events-empty.parquet", schema):
            pass
    return written


def _cut(batches: Iterator[Any]) -> Iterator[Iterator[Any]]:
    """Batches by span, cut where a span ends. Each span is to be taken whole before the next one."""
    rest: list[Any] = []

    def span() -> Iterator[Any]:
        room = SPAN_EVENTS
        while room:
            batch = rest.pop() if rest else next(batches, None)
            if batch is None:
                return
            part = batch.slice(0, room)
            if part.num_rows < batch.num_rows:
                rest.append(batch.slice(room))
            room -= part.num_rows
            yield part

    while True:
        if not rest:
            batch = next(batches, None)
            if batch is None:
                return
            rest.append(batch)
        yield span()


class _Writer:
    """A Parquet file that is durable when it is closed; batches are gathered into row groups."""

    def __init__(self, path: Path, schema: Any) -> None:
        self._path, self._schema = path, schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", write_statistics=True)
        self._gathered: list[Any] = []
        self._rows = 0

    def write(self, batch: Any) -> None:
        """Add rows."""
        self._gathered.append(batch)
        self._rows += batch.num_rows
        if self._rows >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._gathered:
            table = pa.Table.from_batches(self._gathered).replace_schema_metadata(self._schema.metadata)
            self._writer.write_table(table, row_group_size=GROUP_ROWS)
        self._gathered, self._rows = [], 0

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        if kind is None:
            _sync(self._path)


def _sync(path: Path) -> None:
    """Have a file or folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
