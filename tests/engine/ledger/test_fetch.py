"""Events of earlier entries, which the ledger reads back through `fetch_events`: when it asks, and whom it believes."""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import pytest

from bezant.engine.ledger.ledger import Execution, Ledger
from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.errors import LedgerError
from bezant.protocol.kinds import ResultFlag
from bezant.protocol.records import EVENT, Records

from .model_records import Command, encode_commands
from .pair import Pair
from .tables import (
    MAX,
    capture,
    capture_open,
    hold,
    id_of,
    linked,
    open_account,
    release,
    set_limit,
    transfer,
)

HASH_SPREAD: Final = 0x9E3779B97F4A7C15
"""An odd constant such as hashes multiply words with, and an attacker knows."""


class Book:
    """A ledger whose history is a list of events; `fetch` can be replaced."""

    def __init__(self) -> None:
        self.events: list[np.void] = []
        self.asked: list[list[int]] = []
        self.fetch: Callable[[list[int]], list[np.void]] = lambda sequences: [self.events[one - 1] for one in sequences]
        self.ledger = Ledger(accounts_max=16, holds_max=512, ids_capacity_initial=16, fetch_events=self._fetch_events)
        self.ledger.register_currency("EUR", 2)

    def _fetch_events(self, sequences: npt.NDArray[np.int64]) -> Records:
        self.asked.append(sequences.tolist())
        fetched = self.fetch(sequences.tolist())
        records = np.zeros(len(fetched), EVENT)
        for number, event in enumerate(fetched):
            records[number] = event
        return records

    def run(self, *commands: Command) -> Execution:
        executed = self.ledger.execute(encode_commands(commands), self.ledger.last_timestamp_ns + 1_000)
        self.events.extend(executed.events.copy())
        return executed


@pytest.fixture
def book() -> Book:
    made = Book()
    made.run(open_account("world", MAX), open_account("ann"))
    return made


def test_only_earlier_entries_are_asked_for_and_only_when_an_id_is_known(book: Book) -> None:
    paid = [transfer("world", "ann", amount) for amount in (5, 6, 7)]
    book.run(*paid, *paid, transfer("world", "ann", 0))
    assert book.asked == []
    book.run(paid[2], transfer("world", "ann", 8), paid[0], paid[2])
    assert {sequence for sequences in book.asked for sequence in sequences} == {3, 5}


def test_a_thousand_repeats_are_asked_for_at_once(book: Book) -> None:
    """One read for the whole entry, not one for each command."""
    paid = [transfer("world", "ann", amount) for amount in range(1, 1_001)]
    book.run(*paid)
    again = book.run(*paid[::-1])
    assert len(book.asked) == 1
    assert again.results["effective_amount"].tolist() == list(range(1_000, 0, -1))
    assert set(again.results["flags"].tolist()) == {ResultFlag.REPEATED}


def test_a_closed_hold_is_told_apart_by_the_event_that_made_it(book: Book) -> None:
    """The fate is in the index; whose it is, only the event of the HOLD says. Nothing else is fetched with it."""
    book.run(hold("world", "ann", 5, id=id_of(1)), hold("world", "ann", 5, id=id_of(2)))
    book.run(release("world", id_of(1)), capture("world", "ann", id_of(2), 3))
    assert book.asked == []
    codes = book.run(capture("world", "ann", id_of(1)), transfer("world", "ann", 1)).results["code"].tolist()
    assert (codes, book.asked) == ([Code.HOLD_RELEASED, Code.COMMITTED], [[3]])
    chained = linked(release("world", id_of(1)), release("world", id_of(2)))
    codes = book.run(*chained).results["code"].tolist()
    assert (codes, book.asked[1:]) == ([Code.HOLD_RELEASED, Code.CHAIN_MEMBER_REFUSED], [[3, 4]])


def test_open_holds_are_captured_without_a_look_at_the_event(book: Book) -> None:
    book.run(*(hold("world", "ann", 5, id=id_of(number)) for number in range(1, 10)))
    book.run(*(capture_open("world", "ann", id_of(number), 1) for number in range(1, 10)))
    book.run(*linked(*(capture("world", "ann", id_of(number)) for number in range(1, 10))))
    assert book.asked == []


@pytest.mark.parametrize("is_chain", [False, True])
def test_hundreds_of_closed_holds_are_asked_for_at_once(book: Book, is_chain: bool) -> None:
    """A client that tries again what it has done must not make the ledger read events one by one."""
    book.run(*(hold("world", "ann", 5, id=id_of(number)) for number in range(1, 201)))
    book.run(*(release("world", id_of(number)) for number in range(1, 201)))
    again = [capture("world", "ann", id_of(number)) for number in range(200, 0, -1)]
    codes = book.run(*(linked(*again) if is_chain else again)).results["code"].tolist()
    assert codes == [Code.HOLD_RELEASED, *[Code.CHAIN_MEMBER_REFUSED if is_chain else Code.HOLD_RELEASED] * 199]
    assert book.asked == [list(range(3, 203))]


def test_holds_that_the_entry_itself_closes_are_asked_for_at_once(book: Book) -> None:
    """Each is captured and then captured again; at its second stop the ledger looks ahead for all of them."""
    book.run(*(hold("world", "ann", 5, id=id_of(number)) for number in range(1, 201)))
    entry = [capture("world", "ann", id_of(number), fee) for number in range(1, 201) for fee in (5, 1)]
    codes = book.run(*entry).results["code"].tolist()
    assert codes == [Code.COMMITTED, Code.HOLD_CAPTURED] * 200
    assert book.asked == [[3], list(range(4, 203))]


def test_another_event_than_the_one_asked_for_is_not_believed(book: Book) -> None:
    """Reading the wrong event back must stop the ledger: going on would take a repeat for a new command."""
    paid = transfer("world", "ann", 5)
    book.run(paid)
    book.fetch = lambda sequences: [book.events[0] for _ in sequences]
    with pytest.raises(LedgerError):
        book.run(paid)


def test_after_a_failed_read_nothing_is_lost(book: Book) -> None:
    """Either the entry had no effect, or the ledger refuses to go on; it must not skip the events of half an entry."""

    def fail(sequences: list[int]) -> list[np.void]:
        raise OSError(f"events {sequences} cannot be read")

    paid = transfer("world", "ann", 5)
    book.run(paid)
    good, book.fetch = book.fetch, fail
    before = (book.ledger.next_sequence, book.ledger.list_accounts(0, 16).tobytes())
    with pytest.raises(OSError, match="cannot be read"):
        book.run(transfer("world", "ann", 6), paid)
    book.fetch = good
    if (book.ledger.next_sequence, book.ledger.list_accounts(0, 16).tobytes()) != before:
        with pytest.raises(LedgerError):
            book.run(set_limit("ann", 1))


# --- Ids that were chosen to have equal hashes


def chosen_ids(bits: int) -> list[bytes]:
    """Ids whose hashes are often equal if a head is multiplied, has its salt added, and then meets the tail in an xor.

    The heads differ in their highest bits alone, which the product carries nowhere, and the tails make up for that.
    """
    ids = []
    for number in range(1 << bits):
        product = number * HASH_SPREAD % (1 << bits)
        head = number << 64 - bits
        tail = (product << 64 - bits) ^ (product << 32 - bits) ^ 1
        ids.append(head.to_bytes(8, "little") + tail.to_bytes(8, "little"))
    return ids


def test_new_ids_meet_no_old_ones_even_if_they_were_chosen_to(book: Book) -> None:
    """A client that picks its ids must not make the ledger read, one by one, events that have nothing to do with it."""
    ids = chosen_ids(8)[1:]
    for start in range(0, len(ids), 50):
        book.run(*(transfer("world", "ann", 1, id=identifier) for identifier in ids[start : start + 50]))
    assert book.asked == []


def test_look_ups_tell_ids_apart_that_were_chosen_to_be_alike() -> None:
    """Two ids that differ in bit 63 of the head and bits 63 and 31 of the tail."""
    pair = Pair()
    pair.register_currency("EUR", 2)
    pair.execute([open_account("world", MAX), open_account("ann")], 1_000)
    one = id_of(1)
    difference = (1 << 63).to_bytes(8, "little") + (1 << 63 | 1 << 31).to_bytes(8, "little")
    other = bytes(left ^ right for left, right in zip(one, difference, strict=True))
    codes = pair.execute([transfer("world", "ann", 1, id=one), transfer("world", "ann", 2, id=other)], 2_000)
    assert codes == [Code.COMMITTED, Code.COMMITTED]
    assert pair.ledger.find_events(encode_commands(pair.sent))[0].tolist() == [1, 2, 3, 4]
