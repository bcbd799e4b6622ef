"""SQL over a history, answered by DuckDB, which reads it as it streams by and can reach nothing else.

Each scan of a table is a pass over the log of its own, batch by batch, so a query needs the memory of its answer's
making (bounded, see `Settings`) and not that of the history. Of ``events`` only the columns that the query uses are
made: the plan says which those are, and if the query reads differently with those alone, all are made.

Nothing can be changed: the tables are not DuckDB's own, one statement is taken and it must be a query, and DuckDB has
neither files nor network nor extensions, in a configuration that is locked before the query is seen.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import duckdb
import pyarrow as pa

from bezant.engine.tables.history import HistoryTables
from bezant.protocol.errors import BezantError, UsageError
from bezant.sql import events
from bezant.sql.states import STATES

ROWS_AT_A_TIME: Final = 1 << 14
"""Rows of an answer that are handed out together."""
_SCANS: Final = "SCAN"
_POINTERS: Final = ("arrow_scan", "pandas_scan")
"""Functions of DuckDB that take addresses in memory."""


class Settings(NamedTuple):
    """Bounds of a query."""

    memory_bytes: int = 1 << 30
    """Memory that DuckDB may have; a query that needs more ends with an error."""
    threads: int = 2


class SqlError(BezantError):
    """DuckDB cannot answer a query, because of what it says or of what it needs."""


class _Stream:
    """A table as DuckDB scans it, each time from the beginning (the Arrow PyCapsule interface)."""

    def __init__(self, schema: Any, batches: Callable[[], Iterator[Any]]) -> None:
        self._schema, self._batches = schema, batches

    def __arrow_c_schema__(self) -> Any:
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        reader = pa.RecordBatchReader.from_batches(self._schema, self._batches())
        return reader.__arrow_c_stream__(requested_schema)


class Database:
    """Answers queries over one history. Not for several threads."""

    def __init__(self, history: HistoryTables, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        self._history = history
        self._failure: BaseException | None = None
        self._connection = duckdb.connect(
            ":memory:",
            config={
                "enable_external_access": "false",
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "allow_community_extensions": "false",
                "memory_limit": f"{settings.memory_bytes}B",
                "temp_directory": "",
                "threads": str(settings.threads),
                "python_enable_replacements": "false",
            },
        )
        for name, (schema, batches) in STATES.items():
            self._register(name, schema(history.decimals_max), self._state_batches(batches))
        self._register_events(None)
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute("SET lock_configuration = true")

    def query(self, sql: str) -> Any:
        """Answer one query: a reader of Arrow record batches, which come as they are made; take them by `rows_of`.

        Raises `UsageError` for what is no query, `SqlError`, and what reading the history raises.
        """
        with self._telling():
            statements = self._connection.extract_statements(sql)
            kinds = [statement.type for statement in statements]
            if kinds not in ([duckdb.StatementType.SELECT], [duckdb.StatementType.EXPLAIN]):
                raise UsageError("one query is answered at a time, and nothing else: SELECT, DESCRIBE or EXPLAIN")
            if any(name in sql.lower() for name in _POINTERS):
                raise UsageError(f"a query cannot name {' or '.join(_POINTERS)}: they read memory at any address")
            if kinds == [duckdb.StatementType.SELECT]:
                self._narrow(sql)
            return self._connection.sql(sql).to_arrow_reader(ROWS_AT_A_TIME)

    def rows_of(self, reader: Any) -> Iterator[Any]:
        """The record batches of an answer. Raises `SqlError`, and what reading the history raises."""
        while True:
            with self._telling():
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    return
            yield batch

    def close(self) -> None:
        """End it."""
        self._connection.close()

    # ---- columns that are needed ----

    def _narrow(self, sql: str) -> None:
        """Have only those columns of ``events`` made that a query uses."""
        self._register_events(None)
        try:
            described = self._described(sql)
            columns = self._columns_used(sql)
            if columns is None:
                return
            self._register_events(columns)
            if self._described(sql) == described:
                return
        except duckdb.Error:
            pass  # it is no plain query, or does not bind with some columns alone: it is told when it is executed
        self._register_events(None)

    def _described(self, sql: str) -> Any:
        return self._connection.execute(f"DESCRIBE {sql}").fetchall()

    def _columns_used(self, sql: str) -> frozenset[str] | None:
        """Columns that a query reads, of whatever table; None if its plan does not say."""
        plans = self._connection.execute(f"EXPLAIN (FORMAT json) {sql}").fetchall()
        nodes: list[Any] = [node for _, plan in plans for node in json.loads(plan)]
        found: set[str] = set()
        scans = 0
        while nodes:
            node = nodes.pop()
            nodes += node.get("children", [])
            if _SCANS not in node.get("name", ""):
                continue
            scans += 1
            used = node.get("extra_info", {}).get("Projections")
            if used is None:
                return None
            found.update([used] if isinstance(used, str) else used)
        columns = frozenset(found) & frozenset(events.COLUMNS)
        return columns if scans and columns else None

    # ---- tables ----

    def _register(self, name: str, schema: Any, batches: Callable[[], Iterator[Any]]) -> None:
        self._connection.register(name, _Stream(schema, lambda: self._noting(batches())))

    def _register_events(self, columns: frozenset[str] | None) -> None:
        self._register("events", *event_stream(self._history, columns))

    def _state_batches(self, batches: Callable[[Any, int, int], Iterator[Any]]) -> Callable[[], Iterator[Any]]:
        history = self._history

        def make() -> Iterator[Any]:
            yield from batches(history.state(), history.shard, history.decimals_max)

        return make

    def _noting(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Pass batches on, and remember what ends them: of that DuckDB would tell the words alone."""
        try:
            yield from batches
        except Exception as error:
            self._failure = error
            raise

    def _telling(self) -> "_Telling":
        return _Telling(self)

    @property
    def failure(self) -> BaseException | None:
        """What ended a pass over the history."""
        return self._failure


class _Telling:
    """Turns what DuckDB and Arrow raise into errors of ours."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if not isinstance(error, (duckdb.Error, pa.ArrowException, OSError)):
            return
        if self._database.failure is not None:
            raise self._database.failure
        raise SqlError(str(error).split("\n\n")[0]) from error


def event_stream(history: HistoryTables, columns: frozenset[str] | None) -> tuple[Any, Callable[[], Iterator[Any]]]:
    """The schema of ``events``, and what makes its rows anew at each call."""
    schema = events.schema(history.decimals_max, columns)

    def batches() -> Iterator[Any]:
        for replay, batch in history.batches():
            yield events.record_batch(events.EventRows(replay, batch, history.shard, history.decimals_max), schema)

    return schema, batches
