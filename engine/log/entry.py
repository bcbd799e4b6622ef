"""One entry of the log: its header, encoded, decoded and checked, and its hash in the chain."""

import struct
from functools import partial
from typing import Final, NamedTuple

import blake3
import xxhash
from typing_extensions import Buffer

from bezant.protocol.kinds import EntryKind
from bezant.protocol.metadata import BLOB_HEAD_SIZE, blob_head, blob_is_whole
from bezant.protocol.records import ENTRY_HEADER, ENTRY_HEADER_SIZE, ENTRY_STAMP_SIZE, Bytes

HASH_SIZE: Final = 32
HASH_NONE: Final = bytes(HASH_SIZE)
"""The hash before the first entry."""
BODY_SIZE_MAX: Final = 8 << 20
"""Bytes in the body of one entry, at most."""

_PUBLIC_ID_CONTEXT: Final = "bezant: the public id of a log"
_HEADER: Final = struct.Struct("<QqQ32sqqqqiihhiqi12x")
_CHECKSUM: Final = struct.Struct("<Q")
_CHECKED_FROM: Final = _CHECKSUM.size
_WATERMARK: Final = struct.Struct("<q")
_BLOB: Final = int(EntryKind.BLOB)
_KIND_AT: Final = 96

if (
    _HEADER.size != ENTRY_HEADER_SIZE
    or ENTRY_HEADER.fields is None
    or ENTRY_HEADER.fields["durable_before"][1] != _CHECKED_FROM
    or ENTRY_HEADER.fields["body_checksum"][1] != ENTRY_STAMP_SIZE
    or ENTRY_HEADER.fields["kind"][1] != _KIND_AT
):
    raise AssertionError("the entry header's codec and its dtype disagree")


class EntryHeader(NamedTuple):
    """A decoded header; fields as in `ENTRY_HEADER`."""

    header_checksum: int
    durable_before: int
    body_checksum: int
    previous_hash: bytes
    term: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    first_sequence: int
    timestamp_ns: int
    count: int  # type: ignore[assignment]  # likewise
    body_size: int
    kind: int
    format_version: int
    rules_version: int
    log_id: int
    shard: int


_make_header: Final = partial(tuple.__new__, EntryHeader)  # a third as long as a call with fifteen arguments


class Entry(NamedTuple):
    """An entry as it lies in the log: decoded header, encoded header, body."""

    header: EntryHeader
    encoded: bytes
    body: bytes | memoryview


def encode_entry(header: EntryHeader, body: bytes | memoryview) -> Entry:
    """Encode an entry; both checksums in `header` are computed here, whatever it says."""
    body_checksum = xxhash.xxh3_64_intdigest(body if header.kind != _BLOB else blob_head(body))
    checked = _HEADER.pack(0, header.durable_before, body_checksum, *header[3:])[_CHECKED_FROM:]
    checksum = xxhash.xxh3_64_intdigest(checked)
    header = EntryHeader(checksum, header.durable_before, body_checksum, *header[3:])
    return Entry(header, _CHECKSUM.pack(checksum) + checked, body)


def with_durable_before(entry: Entry, durable_before: int) -> Entry:
    """The same entry with another watermark in its header; its hash in the chain stays."""
    checked = _WATERMARK.pack(durable_before) + entry.encoded[ENTRY_STAMP_SIZE:]
    checksum = xxhash.xxh3_64_intdigest(checked)
    header = EntryHeader(checksum, durable_before, *entry.header[2:])
    return Entry(header, _CHECKSUM.pack(checksum) + checked, entry.body)


def decode_header(data: Bytes | bytes | memoryview) -> EntryHeader | None:
    """Decode the header at the start of `data`; None unless it is whole, in its checksum and in its sizes.

    Whether this version of Bezant knows its kind and format is for the caller to say.
    """
    if len(data) < ENTRY_HEADER_SIZE:
        return None
    encoded = bytes(data[:ENTRY_HEADER_SIZE])
    header = _make_header(_HEADER.unpack(encoded))
    if xxhash.xxh3_64_intdigest(encoded[_CHECKED_FROM:]) != header.header_checksum:
        return None
    if not 0 <= header.body_size <= BODY_SIZE_MAX or header.index < 1:
        return None
    return header


def public_log_id(log_id: int) -> str:
    """What a log is called before others: 16 hexadecimal digits, out of which its `log_id` cannot be computed.

    The id itself never leaves the node. Who knew it could send commands whose bytes are a whole header, and recovery
    looks for those wherever damage has left no trace of where entries begin.
    """
    encoded = log_id.to_bytes(8, "little", signed=True)
    return blake3.blake3(encoded, derive_key_context=_PUBLIC_ID_CONTEXT).hexdigest(length=8)


def body_is_whole(header: EntryHeader, body: memoryview) -> bool:
    """Whether a body, as bytes, is the one that its header was made for; or, of a blob, what was left of it erased."""
    if header.kind == _BLOB and len(body) == header.body_size:
        return xxhash.xxh3_64_intdigest(blob_head(body)) == header.body_checksum and blob_is_whole(body)
    return len(body) == header.body_size and xxhash.xxh3_64_intdigest(body) == header.body_checksum


def entry_hash(encoded: bytes, body: Buffer) -> bytes:
    """BLAKE3 of an entry, header and body: what the next entry's `previous_hash` must be.

    But for what each replica stamps itself, so that the same history has the same hashes on all of them; and of a blob
    the head alone, so that it has the same hash when the rest is erased.
    """
    if _is_blob(encoded):
        body = blob_head(body)
    hasher = blake3.blake3(encoded[ENTRY_STAMP_SIZE:])
    hasher.update(body)
    return hasher.digest()


def hash_in_place(data: memoryview) -> bytes:
    """The same of an entry whose header and body are one piece."""
    if _is_blob(data):
        data = data[: ENTRY_HEADER_SIZE + BLOB_HEAD_SIZE]
    return blake3.blake3(data[ENTRY_STAMP_SIZE:]).digest()


def _is_blob(encoded: bytes | memoryview) -> bool:
    return encoded[_KIND_AT] == _BLOB and encoded[_KIND_AT + 1] == 0
