"""`bezant sql`: a query over the history and the balances in a data folder."""

import argparse
import csv
import io
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bezant.cli.errors import CommandFailed, InputWrong
from bezant.cli.output import write_json, write_line, write_remark, write_table
from bezant.cli.session import check_data_folder
from bezant.cli.times import add_moment_arguments, position, start_ns, time_text

if TYPE_CHECKING:
    from bezant.engine.tables.history import HistoryTables

ROWS_SHOWN_MAX: Final = 1000
"""Rows of a table for eyes, which is held in memory to find the widths of its columns."""
DECIMALS_SHOWN_MIN: Final = 2
_MEMORY_DEFAULT: Final = "1GB"
_OUT_OF_MEMORY: Final = "Out of Memory"
_MEMORY: Final = re.compile(r"([1-9][0-9]{0,6})(MB|GB)", re.ASCII)
_UNITS: Final = {"MB": 1 << 20, "GB": 1 << 30}
_NS_PER: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant sql`."""
    parser = subparsers.add_parser(
        "sql",
        description="Answer one SQL query (of DuckDB) over the tables events, accounts, holds and currencies; DESCRIBE"
        " events shows the columns of one. Amounts are exact decimals, and in minor units in the columns that end in"
        " _minor; moved is what an event moved, 0 if it was refused. The folder may be that of a node that runs or not,"
        " and nothing can be changed. Each table is read from the log as it streams by, once for each time that it is"
        " named.",
    )
    parser.add_argument("query", metavar="QUERY", help='as in "select currency, sum(moved) from events group by all"')
    parser.add_argument("--data", metavar="DIR", type=Path, required=True, help="the data folder")
    add_moment_arguments(parser)
    beginning = parser.add_mutually_exclusive_group()
    beginning.add_argument(
        "--since",
        metavar="TIME",
        type=start_ns,
        help="the table events begins at this time; what is before is not even read",
    )
    beginning.add_argument(
        "--after", metavar="P", type=position, help="the table events begins behind the event with this position"
    )
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        type=memory_bytes,
        default=_MEMORY_DEFAULT,
        help="memory for the query, as in 512MB or 4GB (default: %(default)s)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one line of JSON for each row")
    form.add_argument(
        "--csv",
        action="store_true",
        help="print CSV with a header, and texts as they are, also such as a spreadsheet takes for formulas",
    )


def memory_bytes(text: str) -> int:
    """Read a size; for argparse."""
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"a size is written like 512MB or 4GB, not {text!r}")
    return int(match[1]) * _UNITS[match[2]]


def need_extra() -> None:
    """Raise `CommandFailed` unless DuckDB and PyArrow are installed."""
    try:
        import duckdb  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise CommandFailed(f"this needs {error.name}", "install it: pip install 'bezant[sql]'") from error


def open_tables(arguments: argparse.Namespace) -> "HistoryTables":
    """The tables that the arguments name."""
    from bezant.engine.tables.history import HistoryTables

    check_data_folder(arguments.data)
    return HistoryTables(
        arguments.data,
        position=arguments.position,
        time_ns=arguments.at,
        after_position=getattr(arguments, "after", None),
        since_ns=getattr(arguments, "since", None),
    )


def run(arguments: argparse.Namespace) -> int:
    """Answer."""
    need_extra()
    from bezant.protocol.errors import UsageError
    from bezant.sql.database import Database, Settings, SqlError

    try:
        database = Database(open_tables(arguments), Settings(memory_bytes=arguments.memory))
        try:
            reader = database.query(arguments.query)
            write = _write_csv if arguments.csv else _write_lines if arguments.json else _write_table
            write(reader.schema, database.rows_of(reader))
        finally:
            database.close()
    except SqlError as error:
        raise _input_wrong(str(error)) from error
    except UsageError as error:
        raise InputWrong(str(error), "correct the command and run it again") from error
    return 0


def _input_wrong(problem: str) -> InputWrong:
    if problem.startswith(_OUT_OF_MEMORY):
        # What DuckDB advises further is for who may change its settings.
        return InputWrong(problem.splitlines()[0], "give it more with --memory, or ask for less")
    return InputWrong(
        problem,
        'correct the query; "describe events" shows the columns of a table; others are accounts, holds, currencies',
    )


# ---- values ----


def _values(column: Any) -> list[Any]:
    """The values of a column: whole numbers, exact decimals, text, truth; times as text down to nanoseconds."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        factor = _NS_PER[column.type.unit]
        counts = column.cast(pa.int64()).to_pylist()
        return [None if count is None else time_text(count * factor) for count in counts]
    return [_plain(value) for value in column.to_pylist()]


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value.as_tuple().exponent == 0 else value
    if isinstance(value, bytes):
        return value.hex()
    return value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _rows(batches: Iterator[Any]) -> Iterator[tuple[Any, ...]]:
    for batch in batches:
        yield from zip(*(_values(column) for column in batch.columns), strict=True)


# ---- forms ----


def _write_lines(schema: Any, batches: Iterator[Any]) -> None:
    for row in _rows(batches):
        named = zip(schema.names, row, strict=True)
        write_json({name: _for_json(value) for name, value in named})


def _for_json(value: Any) -> Any:
    """Exact decimals are strings, as in every command."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): _for_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_for_json(part) for part in value]
    return _text(value)


def _write_csv(schema: Any, batches: Iterator[Any]) -> None:
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="")

    def write(cells: Any) -> None:
        writer.writerow(cells)
        write_line(line.getvalue())
        line.seek(0)
        line.truncate()

    write(schema.names)
    for row in _rows(batches):
        write([_text(value) for value in row])


def _write_table(schema: Any, batches: Iterator[Any]) -> None:
    import pyarrow as pa

    rows: list[tuple[Any, ...]] = []
    for row in _rows(batches):
        if len(rows) == ROWS_SHOWN_MAX:
            write_remark(f"more than {ROWS_SHOWN_MAX} rows: the others are not shown; --csv and --json print all")
            break
        rows.append(row)
    columns = [_shown([row[place] for row in rows]) for place in range(len(schema))]
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    right = frozenset(field.name for field in schema if any(is_number(field.type) for is_number in numbers))
    write_table(schema.names, list(zip(*columns, strict=True)), right=right)


def _shown(values: list[Any]) -> list[str]:
    """The cells of a column; decimals as many as the value needs that needs most of them."""
    exact = [value for value in values if isinstance(value, Decimal)]
    needed = max((_decimals(value) for value in exact), default=0)
    return [_text(_rounded(value, needed)) for value in values]


def _decimals(value: Decimal) -> int:
    digits = format(value, "f").partition(".")[2]
    return max(len(digits.rstrip("0")), min(len(digits), DECIMALS_SHOWN_MIN))


def _rounded(value: Any, decimals: int) -> Any:
    if not isinstance(value, Decimal):
        return value
    whole, _, digits = format(value, "f").partition(".")
    return Decimal(f"{whole}.{digits[:decimals]}") if digits else value
