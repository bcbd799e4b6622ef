"""What an entry must be like to count, wherever it comes from: the disk, or a leader."""

from typing import Final

import numpy as np

from bezant.engine.log.entry import Entry, EntryHeader
from bezant.protocol.errors import UnsupportedFormat
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import EVENT_SIZE, LOG_FORMAT_VERSION, RULES_VERSION

_EVENTS: Final = int(EntryKind.EVENTS)
_FILLER: Final = int(EntryKind.FILLER)
_KINDS: Final = frozenset(int(kind) for kind in EntryKind)


def check_format(version: int, what: str) -> None:
    """Raise `UnsupportedFormat` unless a file has the format that this version reads and writes."""
    if version > LOG_FORMAT_VERSION:
        raise UnsupportedFormat(
            f"{what} has format {version}; this version of Bezant reads format {LOG_FORMAT_VERSION}: start the newer "
            "version that wrote it"
        )
    if version < LOG_FORMAT_VERSION:
        raise UnsupportedFormat(
            f"{what} has format {version}, made by an earlier development version of Bezant; this one reads format "
            f"{LOG_FORMAT_VERSION}: export the history with the version that wrote it, and import it with this one"
        )


def find_unknown(entry: Entry) -> str:
    """What of an entry that is whole only a newer version of Bezant knows, in words; empty if nothing.

    To take such an entry for damage would be to cut it off.
    """
    header = entry.header
    if header.kind not in _KINDS:
        return f"kind {header.kind}"
    if header.format_version > LOG_FORMAT_VERSION:
        return f"format {header.format_version}"
    if header.rules_version > RULES_VERSION:
        return f"rules {header.rules_version}"
    return ""


def find_nonsense(entry: Entry, term_before: int) -> str:
    """What no version of Bezant writes, in an entry that is whole and comes next, in words; empty if nothing.

    `term_before`: that of the entry before it.
    """
    header = entry.header
    if header.format_version < LOG_FORMAT_VERSION:
        return f"an entry of format {header.format_version}"
    if not 0 <= header.durable_before < header.index:
        return f"an entry that claims the log to be durable up to index {header.durable_before}"
    if header.term < term_before:
        return f"an entry of term {header.term} behind one of term {term_before}"
    if header.count < 0:
        return f"an entry of {header.count} events"
    if header.kind == _FILLER and np.any(np.frombuffer(entry.body, np.uint8)):
        return "a filler that is not zeros"
    return ""


def find_miscounted(header: EntryHeader) -> str:
    """How the events of an entry do not agree with its size and kind, in words; empty if they do."""
    has_events = header.kind == _EVENTS
    if (header.count > 0) != has_events or (has_events and header.body_size != header.count * EVENT_SIZE):
        return f"kind {header.kind}, and {header.count} events in {header.body_size} bytes"
    return ""
