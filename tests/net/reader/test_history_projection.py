"""Claim: what a reader keeps of a history is gone on with at the next start, on a real log of many segments."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bezant.engine.following import Follower, open_follower
from bezant.engine.log.storage import Directory
from bezant.engine.projections import queries as queries_module
from bezant.engine.projections.answers import Range
from bezant.engine.projections.files import FREE_SPACE_FLOOR
from bezant.engine.projections.projections import ProjectionSettings, View
from bezant.engine.projections.queries import AsOf
from bezant.engine.projections.reading import NotKnownYet
from bezant.engine.replica import Replica, ReplicaSettings, open_replica, shard_directory
from bezant.net.reader import history as history_module
from bezant.net.reader.history import HistoryProjection
from bezant.net.reader.projecting import Awaits
from bezant.net.reader.queries import HistoryQueries, NotForToken
from bezant.protocol.errors import StorageError
from bezant.protocol.history_messages import HistoryPage, QueryTransfers
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.names import account_id
from bezant.protocol.records import PUSHED_EVENT, Records, Words, id_words

from ...engine.commands import join, opening_world, transfers

TINY = ProjectionSettings(block_events=8, blocks_per_seal=2, fan_in=2)
BATCH_BYTES = 10_000
SMALL = ReplicaSettings(segment_size=64 << 10, free_space_floor=0, accounts_max=64, holds_max=16)
IDS = np.array([id_words(account_id(name, "EUR")) for name in ("world", "ann", "bob")], np.int64)


class Kept:
    """A projection on a log, as the reader's thread drives it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        directory = shard_directory(data, 0)
        follower = open_follower(directory)
        assert follower is not None
        self.follower: Follower = follower
        self.projection = HistoryProjection(directory.path / "reader", 0, follower.log_id, TINY)
        self.start = self.projection.start()
        with pytest.raises(StorageError, match="being opened"):
            _ = self.projection.questions
        follower.begin(self.start)
        self.projection.begin(follower)
        with pytest.raises(StorageError, match="being read"):
            self.projection.check_level()

    def begin_again(self) -> None:
        """Have the log read from its beginning, as for another projection that was not saved."""
        self.close()
        directory = shard_directory(self.data, 0)
        follower = open_follower(directory)
        assert follower is not None
        self.follower = follower
        self.projection = HistoryProjection(directory.path / "reader", 0, follower.log_id, TINY)
        assert self.projection.start() is not None
        follower.begin(None)
        self.projection.begin(follower)

    def take_in(self) -> None:
        while entries := self.follower.take(BATCH_BYTES):
            self.projection.take_in(entries)
        self.projection.rest()
        self.projection.check_level()

    def balances(self, as_of: AsOf) -> list[int]:
        questions = self.projection.questions
        view = questions.view()
        return questions.accounts(view, IDS, questions.moment(view, as_of)).records["balance"].tolist()

    def close(self) -> None:
        self.projection.close()
        self.follower.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def replica(data: Path) -> Iterator[Replica]:
    opened = open_replica(data, settings=SMALL)
    opened.execute(opening_world("ann", "bob"))
    opened.write_group()
    yield opened
    opened.close()


def pay(replica: Replica, entries: int, events: int) -> None:
    """Entries of a few transfers of 1 each, committed."""
    for _ in range(entries):
        replica.execute(transfers("world", "ann", events))
        replica.write_group()
    replica.log.commit_index = replica.log.last_index


def test_it_goes_on_where_it_was_on_a_log_of_many_segments(
    data: Path, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "RESUME_POINT_EVENTS", 20)
    pay(replica, 150, 7)
    replica.close()
    first = Kept(data)
    assert first.start is None
    first.take_in()
    last = 3 + 150 * 7
    moments = [AsOf(position=position) for position in (0, 3, 4, 500, last)]
    expected = [first.balances(as_of) for as_of in moments]
    assert expected == [[0, 0, 0], [0, 0, 0], [-1, 1, 0], [-497, 497, 0], [-1050, 1050, 0]]
    first.close()
    second = Kept(data)
    assert second.start is not None
    assert 0 < second.start.next_sequence <= last
    assert len(second.start.segments) > 1
    second.take_in()
    assert [second.balances(as_of) for as_of in moments] == expected
    with pytest.raises(NotKnownYet):
        second.balances(AsOf(position=last + 1))
    second.close()


def test_what_it_knows_and_the_log_has_not_come_to_yet_is_waited_for(
    data: Path, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "RESUME_POINT_EVENTS", 20)
    pay(replica, 150, 7)
    replica.close()
    kept = Kept(data)
    kept.take_in()
    kept.begin_again()
    for _ in range(2):
        with pytest.raises(Awaits) as awaited:
            kept.balances(AsOf(position=500))
        assert kept.follower.last_sequence < awaited.value.sequence <= 500
        kept.follower.take(1)
    kept.take_in()
    assert kept.balances(AsOf(position=500)) == [-497, 497, 0]
    kept.close()


def test_it_is_never_ahead_of_what_is_published_and_follows_while_the_log_is_written(
    data: Path, replica: Replica
) -> None:
    pay(replica, 3, 5)
    replica.close()
    kept = Kept(data)
    kept.take_in()
    assert kept.balances(AsOf()) == [-15, 15, 0]
    again = open_replica(data, settings=SMALL)
    pay(again, 2, 4)
    again.close()
    kept.take_in()
    assert kept.balances(AsOf()) == [-15, 15, 0]  # nobody has published more
    kept.close()
    later = Kept(data)
    later.take_in()
    assert later.balances(AsOf()) == [-23, 23, 0]
    later.close()


def test_a_disk_that_is_nearly_full_is_said_before_anything_fails(
    data: Path, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    pay(replica, 1, 1)
    kept = Kept(data)
    assert kept.projection.find_obstacle() == ""
    monkeypatch.setattr(Directory, "free_bytes", lambda _: FREE_SPACE_FLOOR)
    assert "what can be asked about the past stays behind" in kept.projection.find_obstacle()
    monkeypatch.undo()
    shutil.rmtree(data / "shard-0000" / "reader")
    assert kept.projection.find_obstacle() == ""
    kept.close()


def test_a_token_that_is_limited_learns_nothing_of_others_events_not_even_that_there_are_any(
    data: Path, replica: Replica
) -> None:
    others, own = transfers("world", "bob", 3), transfers("world", "ann", 2)
    elsewhere = transfers("world", "anna", 1)  # who is not open here, so that nobody knows the name
    replica.execute(join(others, own, transfers("world", "bob", 1), elsewhere))
    replica.write_group()
    replica.log.commit_index = replica.log.last_index
    replica.close()
    kept = Kept(data)
    kept.take_in()
    queries = HistoryQueries(kept.projection)

    def found(commands: Records, limit: int, own_name: str = "") -> tuple[int, int]:
        """How many events a token for ann is told of, and whether there are more."""
        ids = np.stack([commands["id_head"], commands["id_tail"]], axis=1).tobytes()
        body = encode_message(QueryTransfers(id=ids, limit=limit, own_name=own_name, own_currency="EUR"))
        page = decode_message(queries.own_transfers(("ann",), body, 0), HistoryPage)
        return len(page.events) // PUSHED_EVENT.itemsize, page.next_after

    assert found(others, 1) == (0, 0)
    assert found(join(others, own[:1]), 1) == found(join(own[:1], others), 1) == (1, 0)
    first, following = found(join(others, own), 1)
    assert (first, following) == (1, 3 + len(others) + 1), "it goes on behind what is told"
    assert found(elsewhere, 1) == (0, 0)
    assert found(join(others, elsewhere), 1, own_name="anna") == (1, 0), "who says the name knows whose id it is"
    with pytest.raises(NotForToken):
        found(others, 1, own_name="bob")
    kept.close()


@pytest.mark.parametrize("reverse", [False, True])
def test_a_page_of_events_by_ids_takes_no_more_reads_than_it_has_lines(
    data: Path, replica: Replica, monkeypatch: pytest.MonkeyPatch, reverse: bool
) -> None:
    monkeypatch.setattr(queries_module, "EVENTS_AT_ONCE", 1)
    paid = transfers("world", "ann", 60)
    replica.execute(paid)
    replica.write_group()
    replica.log.commit_index = replica.log.last_index
    replica.close()
    kept = Kept(data)
    kept.take_in()
    questions = kept.projection.questions
    read, counts = questions.reader.read, []

    def counted(view: View, sequences: Words) -> Records:
        counts.append(len(sequences))
        return read(view, sequences)

    monkeypatch.setattr(questions.reader, "read", counted)
    view = questions.view()
    moment = questions.moment(view, AsOf())
    ids = [(int(row["id_head"]), int(row["id_tail"])) for row in paid]
    page = questions.transfer(view, ids, moment, Range(limit=2, reverse=reverse))
    assert page.sequences.tolist() == ([63, 62] if reverse else [4, 5])
    assert page.next_after == page.sequences[-1]
    assert sum(counts) == 3 + 2, "as many as there are lines, one more, and the lines"
    last = questions.transfer(view, ids, moment, Range(after=page.next_after, limit=60, reverse=reverse))
    assert (len(last.sequences), last.next_after) == (58, 0)
    kept.close()
