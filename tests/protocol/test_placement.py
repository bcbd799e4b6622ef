"""Claim: a slot map is refused unless every slot has a shard that it names, and slots are found as names say."""

import os

import msgspec
import numpy as np
import pytest

from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.names import slot_of
from bezant.protocol.placement import (
    MAP_VERSION_MAX,
    METADATA_SHARD,
    SHARD_ADDRESSES_MAX,
    SHARD_MAX,
    SLOT_COUNT,
    ShardPlace,
    SlotMap,
    owners_of,
    slots_of_words,
)

ALL_OF_7 = (7).to_bytes(2, "little") * SLOT_COUNT
GOOD = SlotMap(1, ALL_OF_7, [ShardPlace(7, ["a:1"])])


def test_the_metadata_group_is_no_shard_of_a_map() -> None:
    assert METADATA_SHARD == SHARD_MAX + 1 == SLOT_COUNT - 1
    ShardPlace(SHARD_MAX, ["a:1"])
    with pytest.raises(ValueError, match="0 to 4094, not 4095"):
        ShardPlace(METADATA_SHARD, ["a:1"])


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"version": 0}, "version of a slot map is 1"),
        ({"version": MAP_VERSION_MAX + 1}, "version of a slot map is 1"),
        ({"slots": ALL_OF_7[:-2]}, "4096 shard numbers of two bytes, not 8190 bytes"),
        ({"slots": ALL_OF_7 + b"\x07\0"}, "not 8194 bytes"),
        ({"slots": ALL_OF_7[:-2] + b"\x08\0"}, "slots belong to shard 8"),
        ({"shards": []}, "slots belong to shard 7"),
        ({"shards": [ShardPlace(7, ["a:1"]), ShardPlace(7, ["b:1"])]}, "each once"),
        ({"shards": [ShardPlace(8, ["b:1"]), ShardPlace(7, ["a:1"])]}, "order of their numbers"),
        ({"shards": [ShardPlace(7, ["a:1"]), ShardPlace(8, ["a:1"])]}, "an address stands in a slot map twice"),
        ({"shards": [ShardPlace(7, ["a:1", "a:1"])]}, "an address stands in a slot map twice"),
    ],
)
def test_what_no_node_can_work_with_is_refused(fields: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        msgspec.structs.replace(GOOD, **fields)
    wire = msgspec.msgpack.encode(msgspec.structs.asdict(GOOD) | fields)
    with pytest.raises(RemoteProtocolError, match="the body is not a SlotMap"):
        decode_message(wire, SlotMap)


@pytest.mark.parametrize("count", [0, SHARD_ADDRESSES_MAX + 1])
def test_a_shard_has_some_addresses(count: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 15 addresses, not {count}"):
        ShardPlace(1, [f"a:{number}" for number in range(count)])


def test_a_map_fits_in_a_frame_whatever_it_says() -> None:
    """Also with as many shards as there can be."""
    owners = np.minimum(np.arange(SLOT_COUNT), SHARD_MAX).astype("<u2")
    places = [ShardPlace(shard, [f"127.0.0.1:{shard}"]) for shard in range(SHARD_MAX + 1)]
    largest = SlotMap(1, owners.tobytes(), places)
    assert len(encode_message(largest)) < 1 << 20
    assert owners_of(largest).tolist() == owners.tolist()


def test_words_have_the_slots_of_the_ids_that_they_are_of() -> None:
    ids = [os.urandom(16) for _ in range(1000)] + [b"\xff" * 16, b"\0" * 16, b"\x12\x3f" + bytes(14)]
    heads = np.frombuffer(b"".join(ids), np.int64)[::2]
    assert slots_of_words(heads).tolist() == [slot_of(identifier) for identifier in ids]
