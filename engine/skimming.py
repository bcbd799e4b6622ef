"""Entries as bytes, back to back, taken apart as far as somebody needs it who does not write them."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from typing_extensions import Buffer

from bezant.engine.log.entry import Entry, EntryHeader, decode_header
from bezant.protocol.errors import LedgerError, RemoteProtocolError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.messages import Configuration, decode_control_entry, decode_message
from bezant.protocol.raft_messages import Append
from bezant.protocol.records import ENTRY_HEADER_SIZE, ENTRY_INDEX_FIRST

_CONFIGURATION: Final = int(EntryKind.CONFIGURATION)


class Skimmed(NamedTuple):
    """The entries in the bytes, their bodies parts of these, and the configurations among them, by index."""

    entries: list[Entry]
    configurations: tuple[tuple[int, Configuration], ...]


def skim(payload: memoryview, message: Append) -> Skimmed:
    """Find the entries that a message is said to bring. What they are is left to `Log.append_received` to verify; their
    bodies are not looked at, unless they are configurations.

    Raises `RemoteProtocolError` if they are not the ones that the message tells of.
    """
    entries: list[Entry] = []
    configurations: list[tuple[int, Configuration]] = []
    offset, index, terms = 0, message.prev_index, _Terms(message)
    while offset < len(payload):
        index += 1
        encoded = bytes(payload[offset : offset + ENTRY_HEADER_SIZE])
        header = decode_header(encoded)
        if header is None or header.index != index or header.term != terms.of(index):
            raise RemoteProtocolError(f"entry {index} of the leader is not where, or not what, its message says")
        body_at, offset = offset + ENTRY_HEADER_SIZE, offset + ENTRY_HEADER_SIZE + header.body_size
        entry = Entry(header, encoded, payload[body_at:offset])
        entries.append(entry)
        configuration = configuration_of(header, entry.body)
        if configuration is not None:
            configurations.append((index, configuration))
    if index != message.last_index or offset != len(payload):
        raise RemoteProtocolError(f"the leader sent entries up to {index}, and its message says {message.last_index}")
    return Skimmed(entries, tuple(configurations))


def split_span(pieces: Sequence[Buffer]) -> list[Entry]:
    """The entries of a log that were read, verified, as one span of bytes. Raises `LedgerError` if they are none."""
    data = memoryview(b"".join(pieces))
    entries: list[Entry] = []
    offset = 0
    while offset < len(data):
        encoded = bytes(data[offset : offset + ENTRY_HEADER_SIZE])
        header = decode_header(encoded)
        if header is None:
            raise LedgerError(f"the log gave bytes that are no entry, at {offset} of {len(data)}")
        body_at, offset = offset + ENTRY_HEADER_SIZE, offset + ENTRY_HEADER_SIZE + header.body_size
        entries.append(Entry(header, encoded, data[body_at:offset]))
    return entries


def configuration_of(header: EntryHeader, body: bytes | memoryview) -> Configuration | None:
    """The configuration that an entry brings into force, or None. Raises `RemoteProtocolError`, `UnsupportedFormat`."""
    if header.kind == _CONFIGURATION:
        return decode_message(body, Configuration)
    if header.index == ENTRY_INDEX_FIRST:
        return decode_control_entry(body).configuration
    return None


class _Terms:
    """The terms of a message's entries, asked for in order."""

    def __init__(self, message: Append) -> None:
        self._runs = message.runs
        self._at = 0

    def of(self, index: int) -> int:
        """The term of an entry."""
        while self._at + 1 < len(self._runs) and self._runs[self._at + 1].first_index <= index:
            self._at += 1
        return self._runs[self._at].term
