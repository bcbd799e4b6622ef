"""Claim: every record lies in memory exactly as specified, so its bytes can travel and be stored as they are.

The offsets themselves are tested against the tables of protocol/README.md, in test_readme.py.
"""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bezant.protocol import records
from bezant.protocol.records import (
    ACCOUNT,
    COMMAND,
    CONTROL_PAGE,
    ENTRY_HEADER,
    EVENT,
    EVENT_ANSWER,
    EVENT_QUERY,
    PROGRESS,
    PUSHED_EVENT,
    RESULT,
    SEGMENT_HEADER,
    VOTE_SLOT,
    id_bytes,
    id_words,
    position_of,
    split_position,
)

RECORDS = {
    "COMMAND": (COMMAND, 128),
    "EVENT": (EVENT, 192),
    "RESULT": (RESULT, 64),
    "ACCOUNT": (ACCOUNT, 160),
    "EVENT_QUERY": (EVENT_QUERY, 32),
    "EVENT_ANSWER": (EVENT_ANSWER, 208),
    "PUSHED_EVENT": (PUSHED_EVENT, 208),
    "PROGRESS": (PROGRESS, 32),
    "ENTRY_HEADER": (ENTRY_HEADER, 128),
    "SEGMENT_HEADER": (SEGMENT_HEADER, 4096),
    "CONTROL_PAGE": (CONTROL_PAGE, 4096),
    "VOTE_SLOT": (VOTE_SLOT, 4096),
}
every_record = pytest.mark.parametrize(("dtype", "size"), RECORDS.values(), ids=RECORDS)
WORDS = st.integers(-(2**63), 2**63 - 1)


def fields_of(dtype: np.dtype[np.void]) -> list[tuple[str, np.dtype[np.generic], int]]:
    """(name, type, offset) of every field."""
    fields = dtype.fields or {}
    return [(str(name), fields[name][0], fields[name][1]) for name in dtype.names or ()]


def test_every_dtype_of_the_module_is_tested_here() -> None:
    named = {name for name, value in vars(records).items() if isinstance(value, np.dtype) and name.isupper()}
    assert named == set(RECORDS)


@every_record
def test_the_size_is_frozen_and_keeps_words_aligned_in_an_array(dtype: np.dtype[np.void], size: int) -> None:
    assert dtype.itemsize == size
    assert size % 8 == 0


@every_record
def test_fields_are_aligned_in_order_and_inside_the_record(dtype: np.dtype[np.void], size: int) -> None:
    end = 0
    for name, kind, offset in fields_of(dtype):
        assert offset >= end, name
        end = offset + kind.itemsize
        # Words that straddle their alignment would be slow to read, and impossible for an atomic store.
        assert offset % min(kind.itemsize, 8) == 0, name
    assert end <= size


@every_record
def test_numbers_are_little_endian_and_signed_except_checksums(dtype: np.dtype[np.void], size: int) -> None:
    for name, kind, _ in fields_of(dtype):
        if kind.kind not in "iu":
            continue
        assert kind.str.startswith("<"), name
        assert kind.kind == ("u" if "checksum" in name else "i"), name


def test_an_event_begins_with_its_command_and_puts_the_outcome_where_the_reserved_word_was() -> None:
    command, event = fields_of(COMMAND), fields_of(EVENT)
    assert command[:-1] == event[: len(command) - 1]
    assert command[-1][0] == "reserved"
    assert event[len(command) - 1][2] == command[-1][2] == 120


def test_an_event_answer_holds_an_event_whole() -> None:
    event = np.zeros(1, EVENT)
    event["debit_balance"] = -7
    answer = np.zeros(2, EVENT_ANSWER)
    answer["event"][1] = event.tobytes()
    assert answer["event"][1].tobytes() == event.tobytes()
    assert answer.tobytes()[208 + 16 :] == event.tobytes()


def test_a_command_packed_by_hand_reads_as_one() -> None:
    packed = struct.pack("<16s16s16s16s16sqqqqihhq", *(bytes([n] * 16) for n in range(1, 6)), 6, 7, 8, 9, 10, 11, 12, 0)
    [command] = np.frombuffer(packed, COMMAND)
    assert id_bytes(command["id_head"], command["id_tail"]) == b"\x01" * 16
    assert id_bytes(command["debit_head"], command["debit_tail"]) == b"\x02" * 16
    assert id_bytes(command["credit_head"], command["credit_tail"]) == b"\x03" * 16
    assert id_bytes(command["reference_head"], command["reference_tail"]) == b"\x04" * 16
    assert id_bytes(command["user_data_head"], command["user_data_tail"]) == b"\x05" * 16
    names = ("amount", "client_timestamp_ns", "currency", "timeout_ms", "code", "flags", "kind", "reserved")
    assert [int(command[name]) for name in names] == [6, 7, 8, 9, 10, 11, 12, 0]


def test_a_result_unpacks_by_hand() -> None:
    result = np.zeros(1, RESULT)
    for number, name in enumerate(RESULT.names or (), start=1):
        result[name] = -number
    assert struct.unpack("<hhiqqqqqqq", result.tobytes()) == tuple(range(-1, -11, -1))


def test_a_layout_that_overlaps_or_overflows_is_refused_at_import() -> None:
    with pytest.raises(AssertionError, match="overlaps"):
        records._layout(16, ("one", "<i8", 0), ("two", "<i8", 4))
    with pytest.raises(AssertionError, match="beyond"):
        records._layout(16, ("one", "<i8", 0), ("two", "<i8", 12))


@given(st.integers(0, 2**12 - 1), st.integers(0, 2**52 - 1))
def test_positions_join_and_split(shard: int, sequence: int) -> None:
    position = position_of(shard, sequence)
    assert -(2**63) <= position < 2**63
    assert split_position(position) == (shard, sequence)
    assert split_position(position & 2**64 - 1) == (shard, sequence)


def test_no_event_has_the_position_that_means_none() -> None:
    assert position_of(0, records.SEQUENCE_FIRST) == 1
    assert records.POSITION_NONE == 0
    assert records.SHARD_BITS + records.SEQUENCE_BITS == 64


@given(st.binary(min_size=16, max_size=16))
def test_ids_split_into_words_and_back(identifier: bytes) -> None:
    head, tail = id_words(identifier)
    assert id_bytes(head, tail) == identifier
    assert struct.pack("<qq", head, tail) == identifier


@given(WORDS, WORDS)
def test_words_join_into_ids_and_back(head: int, tail: int) -> None:
    assert id_words(id_bytes(head, tail)) == (head, tail)


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_an_id_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"16 bytes, not {size}"):
        id_words(bytes(size))
