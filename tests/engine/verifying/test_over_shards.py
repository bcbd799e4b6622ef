"""Claim: logs of shards that are each right by themselves, and do not agree with each other, are found and named."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from bezant.engine.replica import Replica, ReplicaSettings, open_replica
from bezant.engine.transactions.legs import (
    build_decisions,
    build_second_legs,
    build_transit_open,
    build_try_credits,
    build_try_debits,
    transit_id,
)
from bezant.engine.transactions.times import floor_of
from bezant.engine.verifying.over_shards import InFlight, ShardsReport, verify_over_shards
from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.errors import CorruptLog, UsageError
from bezant.protocol.records import LIMIT_UNLIMITED, RULES_VERSION, Records, id_words

from ..commands import CURRENCY, join, opening, transfer
from ..conftest import Clock

TRANSIT: Final = np.array([id_words(transit_id(0, 1, CURRENCY))], np.int64)
FAR: Final = np.array(id_words(transit_id(1, 0, CURRENCY)), np.int64)
GIVEN_UP: Final = int(Code.DEADLINE_PASSED)


class Books:
    """The shards 0 (of ann) and 1 (of bob), on the disk."""

    def __init__(self, folder: Path, settings: ReplicaSettings, clock: Clock) -> None:
        self.folders = {shard: folder / f"{shard}" for shard in (0, 1)}
        self._open = lambda shard: open_replica(self.folders[shard], shard=shard, settings=settings, clock_ns=clock)
        for shard, names in ((0, ("ann",)), (1, ("bob",))):
            replica = self._open(shard)
            replica.switch_rules(RULES_VERSION)
            replica.register_currency(CURRENCY, 2)
            replica.close()
            opened = build_transit_open(shard, 1 - shard, CURRENCY, "once")
            self.run(shard, join(opened, opening("world", LIMIT_UNLIMITED), *map(opening, names)))
        self.run(0, transfer("world", "ann", 1000))

    def run(self, shard: int, commands: Records) -> Records:
        """Execute commands, durably; their events."""
        replica: Replica = self._open(shard)
        try:
            executed = replica.execute(commands, floor_ns=floor_of(commands))
            replica.write_group()
            replica.ledger.check_invariants()
            return executed.events
        finally:
            replica.close()

    def settle(self, sequences: list[int]) -> None:
        replica = self._open(0)
        replica.settle(np.array(sequences))
        replica.write_group()
        replica.close()

    def begin(self, *amounts: int) -> Records:
        asked = join(*(transfer("ann", "bob", amount) for amount in amounts))
        return self.run(0, build_try_debits(asked, TRANSIT))

    def come_in(self, tries: Records) -> Records:
        return self.run(1, build_try_credits(tries, FAR))

    def decide(self, tries: Records, code: int = 0) -> Records:
        return self.run(0, build_decisions(tries, np.full(len(tries), code)))

    def end(self, tries: Records, decisions: Records) -> Records:
        return self.run(1, build_second_legs(tries, decisions, FAR))

    def transfer(self, *amounts: int) -> Records:
        """Done in both shards, and not settled."""
        tries = self.begin(*amounts)
        self.come_in(tries)
        self.end(tries, self.decide(tries))
        return tries

    def verify(self) -> ShardsReport:
        return verify_over_shards(self.folders)

    def fault(self) -> str:
        with pytest.raises(CorruptLog) as found:
            self.verify()
        return str(found.value)


@pytest.fixture
def books(tmp_path: Path, small: ReplicaSettings, clock: Clock) -> Books:
    return Books(tmp_path, small, clock)


def test_whatever_is_under_way_is_no_fault(books: Books) -> None:
    assert books.verify() == ShardsReport((0, 1), 0, 0, 0, 0, 0, 0, ())
    done = books.transfer(30, 40)
    assert books.verify().in_flight == (InFlight(CURRENCY, 0, 0),)
    books.settle([int(5 + number) for number in range(len(done))])
    tried = books.begin(1, 2, 3, 4)  # unknown there
    books.come_in(tried[:3])
    on_the_way = books.decide(tried[:1])
    cancelled = books.decide(tried[1:2], GIVEN_UP)
    books.decide(tried[3:], GIVEN_UP)
    refused = books.begin(5)
    books.decide(refused, int(Code.CREDIT_ACCOUNT_UNKNOWN))
    report = books.verify()
    assert (report.transfers, report.confirmed, report.cancelled, report.open) == (7, 3, 3, 1)
    assert report.in_flight == (InFlight(CURRENCY, 1, 1),)
    books.end(tried[:2], join(on_the_way, cancelled))
    assert books.verify().in_flight == (InFlight(CURRENCY, 0, 0),)


def test_what_a_lost_coordinator_has_left_is_no_fault(books: Books, tmp_path: Path) -> None:
    """Its shard goes on from before it was lost."""
    shutil.copytree(books.folders[0], tmp_path / "before")
    books.come_in(books.begin(30))
    put_back(books, 0, tmp_path / "before")
    report = books.verify()
    assert (report.transfers, report.orphans, report.in_flight) == (0, 1, ())


def put_back(books: Books, shard: int, copy: Path) -> None:
    shutil.rmtree(books.folders[shard])
    shutil.copytree(copy, books.folders[shard])


@pytest.mark.parametrize(
    ("shard", "words"),
    [
        (0, ["shard 1 has confirmed that 30 EUR (minor units) came in from shard 0 (event 4)", "knows nothing of it"]),
        (1, ["the transfer of 30 EUR (minor units) from shard 0 to 1 (event 5) is confirmed and settled, and unknown"]),
    ],
)
def test_a_shard_that_was_set_back_is_found(books: Books, tmp_path: Path, shard: int, words: list[str]) -> None:
    """To a copy of its folder from before it took part."""
    shutil.copytree(books.folders[shard], tmp_path / "before")
    books.transfer(30)
    books.settle([5])
    assert books.verify().confirmed == 1
    put_back(books, shard, tmp_path / "before")
    fault = books.fault()
    assert all(word in fault for word in words), fault


def test_a_shard_that_was_set_back_to_its_try_is_found(books: Books, tmp_path: Path) -> None:
    tries = books.begin(30)
    books.come_in(tries)
    shutil.copytree(books.folders[1], tmp_path / "before")
    books.end(tries, books.decide(tries))
    put_back(books, 1, tmp_path / "before")
    assert books.verify().in_flight == (InFlight(CURRENCY, 30, 1),)
    books.settle([5])
    assert "is confirmed and settled, and open in shard 1" in books.fault()


def other_amount(books: Books, tries: Records) -> None:
    changed = tries.copy()
    changed["amount"] = 31
    books.come_in(changed)
    books.end(changed, books.decide(tries))


def other_end(books: Books, tries: Records) -> None:
    books.come_in(tries)
    decisions = books.decide(tries)
    changed = build_decisions(tries, np.array([GIVEN_UP]))
    books.run(1, build_second_legs(tries, changed, FAR, times=decisions["timestamp_ns"]))


def confirmed_in_vain(books: Books, tries: Records) -> None:
    books.come_in(tries)
    decisions = build_decisions(tries, np.array([0]))
    books.decide(tries, GIVEN_UP)
    books.run(1, build_second_legs(tries, decisions, FAR, times=tries["timestamp_ns"]))


def undecided(books: Books, tries: Records) -> None:
    books.come_in(tries)
    decisions = build_decisions(tries, np.array([0]))
    books.run(1, build_second_legs(tries, decisions, FAR, times=tries["timestamp_ns"]))


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (other_amount, "is 31 EUR (minor units) in shard 1"),
        (other_end, "is confirmed, and cancelled in shard 1"),
        (confirmed_in_vain, "is cancelled, and confirmed in shard 1"),
        (undecided, "is not decided, and confirmed in shard 1"),
    ],
)
def test_logs_that_are_right_and_do_not_agree(
    books: Books, plant: Callable[[Books, Records], None], words: str
) -> None:
    plant(books, books.begin(30))
    fault = books.fault()
    assert fault.startswith("the books of the shards do not agree: ")
    assert words in fault


def test_an_effect_before_its_cause_is_found(books: Books, clock: Clock) -> None:
    tries = books.begin(30)
    undecided(books, tries)
    clock.now_ns += 10**9
    books.decide(tries)
    assert "was confirmed in shard 1 before" in books.fault()


def test_all_shards_are_needed(books: Books) -> None:
    books.transfer(30)
    with pytest.raises(UsageError, match="shard 1, and its log is in none"):
        verify_over_shards({0: books.folders[0]})
