"""Byte layouts of every fixed-width record, defined once, as NumPy dtypes with explicit offsets.

All integers are little-endian and signed unless the name says otherwise: kernels compute in int64, and mixing int64
with uint64 would silently become float64. Ids are 16 opaque bytes; kernels see them as two words, ``_head`` (bytes 0
to 7) and ``_tail`` (bytes 8 to 15). ``README.md`` holds the same tables for people; a test compares the two.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

Records = npt.NDArray[np.void]
Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.int64]

COMMAND_SIZE: Final = 128
EVENT_SIZE: Final = 192
RESULT_SIZE: Final = 64
ACCOUNT_SIZE: Final = 160
EVENT_QUERY_SIZE: Final = 32
EVENT_ANSWER_SIZE: Final = 208
PUSHED_EVENT_SIZE: Final = 208
PROGRESS_SIZE: Final = 32
ENTRY_HEADER_SIZE: Final = 128
SEGMENT_HEADER_SIZE: Final = 4096
CONTROL_PAGE_SIZE: Final = 4096
VOTE_SLOT_SIZE: Final = 4096
NAME_SIZE_MAX: Final = 48

LOG_FORMAT_VERSION: Final = 2
"""The ``format_version`` of segments, entries and control pages. Any other is refused, not guessed at."""
RULES_VERSION: Final = 2
"""The latest rules that this version executes. An entry that was made under later ones is refused, not guessed at."""
ENTRIES_METADATA: Final = 1
"""What a node knows that says so of its entries: those of kind BLOB."""
ENTRIES_POSITIONS: Final = 2
"""These, and named positions in control entries."""
ENTRIES_MOVES: Final = 3
"""These, and slots that move."""
ENTRIES_TOKENS: Final = 4
"""These, and tokens and administrative acts in control entries."""
ENTRIES_FORGOTTEN: Final = 5
"""These, and tokens that are forgotten."""
ENTRIES_VERSION: Final = 5
"""The latest of them that this version knows."""
RULES_ACROSS_SHARDS: Final = 2
"""The first rules that know transit accounts and the kinds from TRY_DEBIT on."""
SEGMENT_MAGIC: Final = b"BZSEGMNT"
CONTROL_MAGIC: Final = b"BZCONTRL"
VOTE_FORMAT_VERSION: Final = 1
VOTE_MAGIC: Final = b"BZVOTESL"
ENTRY_INDEX_FIRST: Final = 1

LIMIT_UNLIMITED: Final = 2**63 - 1
"""The limit of accounts that stand for the outside world: only the 64-bit range stops them."""

POSITION_NONE: Final = 0
SEQUENCE_FIRST: Final = 1
SHARD_BITS: Final = 12
SEQUENCE_BITS: Final = 52

Field = tuple[str, str, int]


def _layout(size: int, *fields: Field) -> np.dtype[np.void]:
    """Build a dtype from (name, type, offset) rows and check that they neither overlap nor leave the record."""
    end = 0
    for name, code, offset in fields:
        if offset < end:
            raise AssertionError(f"field {name} overlaps the one before it")
        end = offset + np.dtype(code).itemsize
    if end > size:
        raise AssertionError(f"fields end at {end}, beyond the record's {size} bytes")
    return np.dtype(
        {
            "names": [name for name, _, _ in fields],
            "formats": [code for _, code, _ in fields],
            "offsets": [offset for _, _, offset in fields],
            "itemsize": size,
        }
    )


_COMMAND_FIELDS: Final[tuple[Field, ...]] = (
    ("id_head", "<i8", 0),
    ("id_tail", "<i8", 8),
    ("debit_head", "<i8", 16),
    ("debit_tail", "<i8", 24),
    ("credit_head", "<i8", 32),
    ("credit_tail", "<i8", 40),
    ("reference_head", "<i8", 48),
    ("reference_tail", "<i8", 56),
    ("user_data_head", "<i8", 64),
    ("user_data_tail", "<i8", 72),
    ("amount", "<i8", 80),
    ("client_timestamp_ns", "<i8", 88),
    ("currency", "<i8", 96),
    ("timeout_ms", "<i8", 104),
    ("code", "<i4", 112),
    ("flags", "<i2", 116),
    ("kind", "<i2", 118),
)

COMMAND: Final = _layout(COMMAND_SIZE, *_COMMAND_FIELDS, ("reserved", "<i8", 120))
"""What a client asks. In an OPEN, bytes 32 to 79 (credit, reference, user data) hold the account's name."""

EVENT: Final = _layout(
    EVENT_SIZE,
    *_COMMAND_FIELDS,
    ("result", "<i4", 120),
    ("event_reserved", "<i4", 124),
    ("timestamp_ns", "<i8", 128),
    ("effective_amount", "<i8", 136),
    ("debit_balance", "<i8", 144),
    ("debit_held", "<i8", 152),
    ("credit_balance", "<i8", 160),
    ("credit_held", "<i8", 168),
    ("debit_previous", "<i8", 176),
    ("credit_previous", "<i8", 184),
)
"""The fact that followed: the command whole, then its outcome, the balances after it and the back-pointers."""

RESULT: Final = _layout(
    RESULT_SIZE,
    ("code", "<i2", 0),
    ("flags", "<i2", 2),
    ("detail", "<i4", 4),
    ("position", "<i8", 8),
    ("timestamp_ns", "<i8", 16),
    ("effective_amount", "<i8", 24),
    ("debit_balance", "<i8", 32),
    ("debit_held", "<i8", 40),
    ("credit_balance", "<i8", 48),
    ("credit_held", "<i8", 56),
)
"""The answer to one command, in the order of the commands in the request."""

ACCOUNT: Final = _layout(
    ACCOUNT_SIZE,
    ("id_head", "<i8", 0),
    ("id_tail", "<i8", 8),
    ("balance", "<i8", 16),
    ("held", "<i8", 24),
    ("incoming", "<i8", 32),
    ("limit", "<i8", 40),
    ("currency", "<i8", 48),
    ("last_position", "<i8", 56),
    ("event_count", "<i8", 64),
    ("opened_position", "<i8", 72),
    ("flags", "<i4", 80),
    ("decimals", "<i4", 84),
    ("found", "<i4", 88),
    ("name", "S48", 96),
)
"""An account as look-ups answer it. ``found`` is 0 for an id that names no account, and all else is then zero."""

EVENT_QUERY: Final = _layout(
    EVENT_QUERY_SIZE,
    ("id_head", "<i8", 0),
    ("id_tail", "<i8", 8),
    ("debit_head", "<i8", 16),
    ("debit_tail", "<i8", 24),
)
"""Names an event: the id of its command and the debit account, since an id is used up per slot of that account."""

EVENT_ANSWER: Final = _layout(
    EVENT_ANSWER_SIZE,
    ("position", "<i8", 0),
    ("found", "<i4", 8),
    ("event", f"V{EVENT_SIZE}", 16),
)
"""An event as look-ups answer it: the bytes of `EVENT`. ``found`` is 0 where none matches, and all else is zero."""

PUSHED_EVENT: Final = _layout(
    PUSHED_EVENT_SIZE,
    ("position", "<i8", 0),
    ("currency", "<i8", 8),
    ("event", f"V{EVENT_SIZE}", 16),
)
"""An event as subscriptions get it: the bytes of `EVENT`, and the currency of its accounts (0 if they do not exist)."""

PROGRESS: Final = _layout(
    PROGRESS_SIZE,
    ("position", "<i8", 0),
    ("timestamp_ns", "<i8", 8),
    ("last_position", "<i8", 16),
)
"""How far a subscription is: every event up to ``position`` that it asks for has been sent."""

ENTRY_HEADER: Final = _layout(
    ENTRY_HEADER_SIZE,
    ("header_checksum", "<u8", 0),
    ("durable_before", "<i8", 8),
    ("body_checksum", "<u8", 16),
    ("previous_hash", "V32", 24),
    ("term", "<i8", 56),
    ("index", "<i8", 64),
    ("first_sequence", "<i8", 72),
    ("timestamp_ns", "<i8", 80),
    ("count", "<i4", 88),
    ("body_size", "<i4", 92),
    ("kind", "<i2", 96),
    ("format_version", "<i2", 98),
    ("rules_version", "<i4", 100),
    ("log_id", "<i8", 104),
    ("shard", "<i4", 112),
)
"""Heads every entry of the log. The checksums are XXH3-64: of bytes 8 to 127, and of the body.

Each replica stamps the first two fields itself. What follows is the same on all of them, and what the hash in the next
entry's ``previous_hash`` covers, with the body.
"""
ENTRY_STAMP_SIZE: Final = 16
"""Bytes at the start of an entry that differ from replica to replica."""

SEGMENT_HEADER: Final = _layout(
    SEGMENT_HEADER_SIZE,
    ("checksum", "<u8", 0),
    ("magic", "S8", 8),
    ("format_version", "<i4", 16),
    ("shard", "<i4", 20),
    ("log_id", "<i8", 24),
    ("segment_number", "<i8", 32),
    ("segment_size", "<i8", 40),
)
"""First page of a segment file. Entries follow, back to back; zeros follow the last one."""

CONTROL_PAGE: Final = _layout(
    CONTROL_PAGE_SIZE,
    ("checksum", "<u8", 0),
    ("magic", "S8", 8),
    ("format_version", "<i4", 16),
    ("shard", "<i4", 20),
    ("log_id", "<i8", 24),
    ("write_count", "<i8", 32),
    ("durable_index", "<i8", 40),
    ("durable_sequence", "<i8", 48),
    ("durable_segment", "<i8", 56),
    ("durable_offset", "<i8", 64),
    ("clean_stop", "<i4", 72),
    ("cutting", "<i4", 76),
    ("commit_index", "<i8", 80),
)
"""How far the log is durable, and whether the node stopped cleanly. Two pages, written in turn."""

VOTE_SLOT: Final = _layout(
    VOTE_SLOT_SIZE,
    ("checksum", "<u8", 0),
    ("magic", "S8", 8),
    ("format_version", "<i4", 16),
    ("shard", "<i4", 20),
    ("write_count", "<i8", 24),
    ("term", "<i8", 32),
    ("voted_for", "<i8", 40),
    ("barred", "<i4", 48),
)
"""The term that a node is in and whom it voted for in it. Two slots, each write goes to both, one after the other."""

for _dtype, _size in (
    (COMMAND, 128),
    (EVENT, 192),
    (RESULT, 64),
    (ACCOUNT, 160),
    (EVENT_QUERY, 32),
    (EVENT_ANSWER, 208),
    (PUSHED_EVENT, 208),
    (PROGRESS, 32),
    (ENTRY_HEADER, 128),
    (SEGMENT_HEADER, 4096),
    (CONTROL_PAGE, 4096),
    (VOTE_SLOT, 4096),
):
    if _dtype.itemsize != _size:
        raise AssertionError(f"a record of {_dtype.itemsize} bytes should have {_size}")


def position_of(shard: int, sequence: int) -> int:
    """Join a shard (12 bits) and a sequence (52 bits) into a position; as a signed word it may be negative."""
    word = shard << SEQUENCE_BITS | sequence
    return word - (1 << 64) if word >> 63 else word


def split_position(position: int) -> tuple[int, int]:
    """Split a position into (shard, sequence)."""
    word = position & (1 << 64) - 1
    return word >> SEQUENCE_BITS, word & (1 << SEQUENCE_BITS) - 1


def id_words(identifier: bytes) -> tuple[int, int]:
    """Split a 16-byte id into its (head, tail) words."""
    if len(identifier) != 16:
        raise ValueError(f"an id has 16 bytes, not {len(identifier)}")
    head = int.from_bytes(identifier[:8], "little", signed=True)
    tail = int.from_bytes(identifier[8:], "little", signed=True)
    return head, tail


def id_bytes(head: int, tail: int) -> bytes:
    """Join the (head, tail) words of an id; the inverse of `id_words`."""
    return int(head).to_bytes(8, "little", signed=True) + int(tail).to_bytes(8, "little", signed=True)
