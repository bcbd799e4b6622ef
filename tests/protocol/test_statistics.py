"""Claim: what a node tells of itself survives the wire under names that do not change, also from an earlier version."""

from typing import Any

import msgspec
import pytest

from bezant.protocol import statistics
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.statistics import FollowerStatistics, Histogram, Queue, ReaderStatistics, Statistics

FOLLOWER = '{"node_id":2,"match_index":3,"behind_entries":4,"state":"probe","active":true}'
EARLIER = (
    '{"uptime_s":1.5,"connections":1,"commands":2,"events":3,"accounts":4,"entries":5,"syncs":6,"syncs_inline":7,'
    '"bytes_in":8,"bytes_out":9,"log_bytes":10,"durable_index":11,"durable_sequence":12,"bytes_in_flight":13,'
    '"stage_s":{"kernel":0.5},"loop_stall_max_ms":1.25,"durable":false,"replicas":3,"loop_stall_recent_ms":0.75'
)
CASES = [
    (Histogram([0, 2], 0.5), '{"counts":[0,2],"sum_s":0.5}'),
    (Queue(1, 2), '{"depth":1,"limit":2}'),
    (FollowerStatistics(2, 3, 4, "probe", True), FOLLOWER),
    (
        Statistics(
            *(1.5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, {"kernel": 0.5}, 1.25, False, 3, 0.75),
            *(14, 15, "leader", 16, 15, 17, 18, [FollowerStatistics(2, 3, 4, "probe", True)]),
            *({"ping": 1}, {"refused": 2}, {"sync": Histogram([1], 0.25)}, {"write": 0.5}, {"legs": Queue(1, 0)}),
            *(19, 20, 21, 22, 23, 24, 25, 26.5, 27.5, "no leader"),
        ),
        EARLIER + ',"shard":14,"node_id":15,"role":"leader","term":16,"leader":15,"commit_index":17,"applied_index":18,'
        f'"followers":[{FOLLOWER}],"requests":{{"ping":1}},"results":{{"refused":2}},'
        '"latency":{"sync":{"counts":[1],"sum_s":0.25}},"waited_s":{"write":0.5},"queues":{"legs":{"depth":1,"limit":0}},'
        '"holds":19,"ids_in_memory":20,"ids_on_disk":21,"memory_bytes":22,"disk_free_bytes":23,"disk_floor_bytes":24,'
        '"checkpoint_index":25,"checkpoint_age_s":26.5,"processor_s":27.5,"unready":"no leader"}',
    ),
    (
        ReaderStatistics(
            *(1.5, 1, 2, 3, 4, 5, 6, 7, 8, 9, {"totals": 10}, {"push": Histogram([1], 0.25)}, {}, 11, 0.5, "behind")
        ),
        '{"uptime_s":1.5,"shard":1,"connections":2,"published_index":3,"followed_index":4,"told_sequence":5,'
        '"projected_sequence":6,"subscriptions":7,"subscriptions_dropped":8,"events_pushed":9,"queries":{"totals":10},'
        '"latency":{"push":{"counts":[1],"sum_s":0.25}},"queues":{},"memory_bytes":11,"processor_s":0.5,'
        '"unready":"behind"}',
    ),
]


@pytest.mark.parametrize(("message", "json"), CASES)
def test_messages_survive_the_wire_under_frozen_names(message: Any, json: str) -> None:
    assert decode_message(encode_message(message), type(message)) == message
    assert msgspec.json.encode(message).decode() == json


def test_every_message_of_the_module_is_tested_here() -> None:
    found = [value for value in vars(statistics).values() if isinstance(value, type)]
    defined = {value for value in found if issubclass(value, msgspec.Struct) and value is not msgspec.Struct}
    assert {type(message) for message, _ in CASES} == defined


def test_what_an_earlier_version_tells_is_understood() -> None:
    told = decode_message(encode_message(msgspec.json.decode(EARLIER + "}")), Statistics)
    assert (told.uptime_s, told.loop_stall_recent_ms, told.role, told.latency) == (1.5, 0.75, "unknown", {})
