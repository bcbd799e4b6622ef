"""Entries of a leader, verified before they count: the bytes of another node's log, back to back."""

from collections.abc import Sequence
from typing import NamedTuple

from bezant.engine.log.checking import find_miscounted, find_nonsense, find_unknown
from bezant.engine.log.entry import Entry, EntryHeader, body_is_whole, decode_header, entry_hash
from bezant.protocol.errors import RemoteProtocolError, UnsupportedFormat
from bezant.protocol.records import ENTRY_HEADER_SIZE


class LogEnd(NamedTuple):
    """The end of a log, which the next entry must continue; `next_sequence` is that of the next event."""

    log_id: int
    shard: int
    last_index: int
    last_term: int
    next_sequence: int
    last_timestamp_ns: int
    chain_hash: bytes


def split_entries(data: memoryview, end: LogEnd) -> list[Entry]:
    """The entries that lie back to back in `data`, verified to continue a log; bodies are parts of `data`.

    Raises `RemoteProtocolError` for anything damaged or impossible, and `UnsupportedFormat` for an entry of a kind,
    format or rules that only a newer version knows.
    """
    entries: list[Entry] = []
    at = 0
    while at < len(data):
        body_at = at + ENTRY_HEADER_SIZE
        encoded = bytes(data[at:body_at])
        header = decode_header(encoded)
        if header is None:
            index = end.last_index + 1 + len(entries)
            raise RemoteProtocolError(f"no whole header where entry {index} was expected, at byte {at} of {len(data)}")
        entries.append(Entry(header, encoded, data[body_at : body_at + header.body_size]))
        at = body_at + header.body_size
    verify_entries(entries, end)
    return entries


def verify_entries(entries: Sequence[Entry], end: LogEnd) -> None:
    """Require that entries continue a log, and are whole. Raises as `split_entries`."""
    for number, entry in enumerate(entries, 1):
        header = entry.header
        problem = _find_problem(entry, end)
        if problem:
            raise RemoteProtocolError(f"{problem} where entry {end.last_index + 1} was expected")
        if number == len(entries):
            return  # Its own hash is left for the time when it is being synced.
        end = end._replace(
            last_index=header.index,
            last_term=header.term,
            next_sequence=header.first_sequence + header.count,
            last_timestamp_ns=header.timestamp_ns,
            chain_hash=entry_hash(entry.encoded, entry.body),
        )


def _find_problem(entry: Entry, end: LogEnd) -> str:
    """What is wrong with an entry that should come next, in words; empty if nothing is."""
    header = entry.header
    if header.log_id != end.log_id or header.shard != end.shard:
        return "an entry of another log"
    if header.index != end.last_index + 1:
        return f"an entry with index {header.index}"
    if header.previous_hash != end.chain_hash:
        return "an entry that does not continue the hash chain"
    if not body_is_whole(header, memoryview(entry.body)):
        return "an entry whose body is damaged or short"
    unknown = find_unknown(entry)
    if unknown:
        raise UnsupportedFormat(
            f"the leader's entry {header.index} has {unknown}, which this version of Bezant does not know: start the "
            "newer version that the leader is of"
        )
    return find_nonsense(entry, end.last_term) or find_miscounted(header) or _find_gap(header, end)


def _find_gap(header: EntryHeader, end: LogEnd) -> str:
    """How an entry does not follow the one before it in the numbers of its events and in time; empty if it does."""
    if header.first_sequence != end.next_sequence:
        return f"an entry with first sequence {header.first_sequence}, and not {end.next_sequence},"
    if header.timestamp_ns <= end.last_timestamp_ns:
        return f"an entry with the time {header.timestamp_ns}, not after {end.last_timestamp_ns} of the one before,"
    return ""
