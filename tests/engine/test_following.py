"""Claim: a follower takes exactly what was published, in order and once, from a node's folder in any state."""

import time
from pathlib import Path

import pytest

from bezant.engine.following import BATCH_ENTRIES_MAX, Follower, open_follower
from bezant.engine.log.log import Log, open_log
from bezant.engine.log.segment import segment_name
from bezant.engine.log.storage import Directory
from bezant.engine.publication import Publisher
from bezant.protocol.errors import CorruptLog

from .log.logs import SEGMENT_SIZE, Fact, Writer, fact_of, flip, segment_path


def take_all(follower: Follower) -> list[Fact]:
    """All that there is, a batch at a time."""
    facts: list[Fact] = []
    while entries := follower.take():
        facts += [fact_of(entry) for entry in entries]
    return facts


def opened(directory: Directory) -> Follower:
    follower = open_follower(directory)
    assert follower is not None
    return follower


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


@pytest.fixture
def writer(directory: Directory) -> Writer:
    return Writer(directory)


def test_a_folder_without_a_log_has_nothing_to_follow(tmp_path: Path) -> None:
    assert open_follower(Directory(tmp_path)) is None
    assert open_follower(Directory(tmp_path / "nowhere")) is None


def test_only_what_is_published_is_taken(directory: Directory, writer: Writer) -> None:
    publisher = Publisher(directory.path, writer.log.log_id)
    writer.write(1, 2)
    follower = opened(directory)
    follower.begin()
    assert take_all(follower) == []
    publisher.publish(1)
    assert take_all(follower) == writer.facts[:1]
    assert (follower.applied_index, follower.last_sequence) == (1, 1)
    publisher.publish(2)
    assert take_all(follower) == writer.facts[1:]
    assert (follower.applied_index, follower.last_sequence) == (2, 3)


def test_it_goes_on_through_segments_and_events_can_be_read_back_at_once(directory: Directory, writer: Writer) -> None:
    publisher = Publisher(directory.path, writer.log.log_id)
    follower = opened(directory)
    follower.begin()
    facts: list[Fact] = []
    reader = Writer.__new__(Writer)
    reader.log = follower.log
    while writer.log.bytes_count < 4 * SEGMENT_SIZE:
        writer.write(7, 1, 40)
        publisher.publish(writer.log.durable_index)
        facts += take_all(follower)
        sequences = list(range(1, writer.next_sequence))
        assert reader.read(*sequences) == sequences
    assert facts == writer.facts
    assert len(follower.log._history.segments) > 3


def test_batches_are_bounded(directory: Directory, writer: Writer) -> None:
    for _ in range(3):
        writer.write(*[1] * BATCH_ENTRIES_MAX)
    Publisher(directory.path, writer.log.log_id).publish(writer.log.durable_index)
    follower = opened(directory)
    follower.begin()
    sizes = [len(follower.take()) for _ in range(2)]
    assert sizes == [BATCH_ENTRIES_MAX, BATCH_ENTRIES_MAX]
    assert [entry.header.count for entry in follower.take(bytes_max=1)] == [1]
    assert follower.applied_index == 2 * BATCH_ENTRIES_MAX + 1


def test_a_folder_at_rest_is_followed_to_its_end(directory: Directory, writer: Writer) -> None:
    """Its node may never have published anything."""
    writer.log.commit_index = 2
    writer.write(1, 2)
    writer.log.commit_index = 3
    writer.write(3)
    writer.close()
    follower = opened(directory)
    follower.begin()
    assert take_all(follower) == writer.facts


def test_what_is_durable_and_not_committed_is_not_taken(directory: Directory, writer: Writer) -> None:
    writer.log.commit_index = 1
    writer.write(1, 2)
    writer.close()
    follower = opened(directory)
    follower.begin()
    assert take_all(follower) == writer.facts[:1]


def test_a_position_that_a_restart_publishes_lower_takes_nothing_back(directory: Directory, writer: Writer) -> None:
    Publisher(directory.path, writer.log.log_id).publish(0)
    publisher = Publisher(directory.path, writer.log.log_id)
    writer.write(1, 2, 3)
    publisher.publish(3)
    follower = opened(directory)
    follower.begin()
    assert take_all(follower) == writer.facts
    again = Publisher(directory.path, writer.log.log_id)
    again.publish(1)
    assert follower.published_index == 3
    assert take_all(follower) == []
    writer.write(4)
    again.publish(4)
    assert take_all(follower) == writer.facts[3:]


def test_it_begins_behind_a_point_and_reads_what_lies_before(directory: Directory, writer: Writer) -> None:
    publisher = Publisher(directory.path, writer.log.log_id)
    writer.write(5, 6)
    publisher.publish(2)
    first = opened(directory)
    first.begin()
    take_all(first)
    point = first.log.resume_point()
    writer.write(7)
    publisher.publish(3)
    second = opened(directory)
    second.begin(point)
    assert (second.applied_index, second.last_sequence) == (2, 11)
    assert take_all(second) == writer.facts[2:]
    reader = Writer.__new__(Writer)
    reader.log = second.log
    assert reader.read(1, 11, 12) == [1, 11, 12]


def test_damage_is_told_and_nothing_behind_it_taken(directory: Directory, writer: Writer) -> None:
    writer.write(1)
    place = writer.log._history.segments[0].end
    writer.write(2)
    Publisher(directory.path, writer.log.log_id).publish(2)
    flip(segment_path(directory.path), place + 200)
    follower = opened(directory)
    follower.begin()
    with pytest.raises(CorruptLog):
        take_all(follower)
    assert follower.applied_index == 0


def test_the_writer_is_untouched(directory: Directory, writer: Writer) -> None:
    Publisher(directory.path, writer.log.log_id).publish(0)
    writer.write(1, 2)
    until_s = time.monotonic() + 20.0
    while segment_name(2) not in directory.names():  # The next segment is made ahead, on a thread.
        assert time.monotonic() < until_s
        time.sleep(0.01)
    names = sorted(directory.names())
    follower = opened(directory)
    follower.begin()
    follower.take()
    follower.close()
    assert sorted(directory.names()) == names
    writer.write(3)
    writer.close()
    log: Log = open_log(directory)
    assert [fact_of(entry) for entry in log.open()] == writer.facts
    log.close()
