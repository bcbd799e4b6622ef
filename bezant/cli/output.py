"""How commands write: results to stdout, progress and remarks to stderr, JSON as one line with sorted meaning.

Nothing here is coloured or wrapped when stdout is not a terminal, so that `| cut`, `| jq` and `> file` get plain text.
"""

import json
import sys
from collections.abc import Iterable, Sequence


def write_line(text: str = "") -> None:
    """Write one line of the result to stdout."""
    sys.stdout.write(text + "\n")


def write_at_once(text: str = "") -> None:
    """Write one line to stdout and let it be seen now, also by the reader of a pipe: for work that takes a while."""
    write_line(text)
    sys.stdout.flush()


def write_json(value: object) -> None:
    """Write one value as one line of JSON to stdout. Amounts are decimal strings in it, never floats."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def write_remark(text: str) -> None:
    """Write one line to stderr: something to know that is not the result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def write_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: frozenset[str] = frozenset()) -> None:
    """Write rows under headings in columns as wide as their widest cell; columns named in `right` end flush.

    Holds all rows in memory; for a list without end, write CSV.
    """
    cells = [list(headings), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    for row in cells:
        padded = (
            cell.rjust(width) if heading in right else cell.ljust(width)
            for heading, cell, width in zip(headings, row, widths, strict=True)
        )
        write_line("  ".join(padded).rstrip())
