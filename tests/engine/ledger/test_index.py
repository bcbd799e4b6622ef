"""The indexes behind accounts and ids grow while in use: nothing is lost, and nothing is found that is not there."""

from collections.abc import Callable, Iterator
from itertools import count
from random import Random
from typing import Final

import numpy as np
import pytest

from bezant.engine.ledger import index as index_module
from bezant.engine.ledger.ledger import Ledger
from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.kinds import CommandKind, ResultFlag
from bezant.protocol.names import account_id
from bezant.protocol.records import COMMAND, Records, id_words

from .model_records import Command, encode_commands
from .pair import Pair
from .tables import MAX, expect, hold, id_of, linked, open_account, release, transfer

ACCOUNTS_COUNT: Final = 3_000
TRANSFERS_COUNT: Final = 10_000
ENTRY_COMMANDS_MAX: Final = 900
IDS_COUNT: Final = 6_000
GONE_COUNT: Final = 1_500


@pytest.mark.parametrize("count", [3, 700, 5_000, 12_345])
def test_all_ids_are_given_out_once_while_the_table_grows(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stage of growth the table is in; each with the sequence of its event."""
    monkeypatch.setattr(index_module, "_PART_SLOTS", 1_000)
    ledger = Ledger(accounts_max=16, holds_max=16, ids_capacity_initial=16)
    ledger.register_currency("EUR", 2)
    sent = 0
    while sent < count:
        size = min(600, count - sent)
        commands = [transfer("ann", "bob", 1, id=id_of(sent + number)) for number in range(size)]
        ledger.execute(encode_commands(commands), ledger.last_timestamp_ns + 1)
        sent += size
        values = np.concatenate([values for _, values in ledger.id_index.parts()])
        expect("values", sorted(values.tolist()), list(range(1, sent + 1)))


def test_thousands_of_accounts_and_ids_from_a_tiny_table() -> None:
    """Against the model, with repeats from every stage of growth in between and all of them once more at the end."""
    chance = Random(1)
    pair = Pair(accounts_max=ACCOUNTS_COUNT, ids_capacity_initial=16)
    pair.register_currency("EUR", 2)
    names = [f"wallet-{number}" for number in range(ACCOUNTS_COUNT)]
    commands = [open_account(name, MAX, id=chance.randbytes(16)) for name in names]
    for _ in range(TRANSFERS_COUNT):
        debit, credit = chance.sample(names, 2)
        commands.append(transfer(debit, credit, chance.randint(1, 1_000), id=chance.randbytes(16)))
    for start, end in stretches(chance, len(commands)):
        repeated = chance.choices(commands[:end], k=20)
        codes = pair.execute([*commands[start:end], *repeated], pair.model.last_timestamp_ns + 1)
        expect("codes", set(codes), {Code.COMMITTED})
    expect("events", pair.ledger.next_sequence - 1, ACCOUNTS_COUNT + TRANSFERS_COUNT)
    pair.compare_accounts()
    before = pair.ledger.next_sequence
    for start, end in stretches(chance, len(commands)):
        pair.execute(commands[start:end], pair.model.last_timestamp_ns + 1)
    expect("next sequence after nothing but repeats", pair.ledger.next_sequence, before)
    full: list[Command] = [open_account("one-more"), open_account(names[0])]
    expect("codes", pair.execute(full, 10**9), [Code.ACCOUNTS_FULL, Code.ACCOUNT_EXISTS])


def stretches(chance: Random, total: int) -> Iterator[tuple[int, int]]:
    """Cut `total` commands into entries of all sizes, the first ones small."""
    start = 0
    while start < total:
        end = min(total, start + chance.randint(1, min(ENTRY_COMMANDS_MAX, 2 + start)))
        yield start, end
        start = end


def random_ids(chance: Random) -> Iterator[bytes]:
    while True:
        yield chance.randbytes(16)


def rising_ids(_: Random) -> Iterator[bytes]:
    """As small integers, most significant byte first: all but the last bytes are equal."""
    return (number.to_bytes(16, "big") for number in count(1))


def rising_ids_of_the_other_order(_: Random) -> Iterator[bytes]:
    return (number.to_bytes(16, "little") for number in count(1))


def ids_of_equal_heads(chance: Random) -> Iterator[bytes]:
    while True:
        yield b"the head" + chance.randbytes(8)


def ids_of_equal_tails(chance: Random) -> Iterator[bytes]:
    while True:
        yield chance.randbytes(8) + b"the tail"


def ids_of_equal_words(chance: Random) -> Iterator[bytes]:
    """Head and tail are the same word, which cancels out in a hash that joins them with an exclusive or."""
    while True:
        yield chance.randbytes(8) * 2


def ids_in_multiples(_: Random) -> Iterator[bytes]:
    """Multiples of 2^32: the low bits that a lazy hash would take are all zero."""
    return (id_of_words(number << 32, number << 32) for number in count(1))


def id_of_words(head: int, tail: int) -> bytes:
    return head.to_bytes(8, "little") + tail.to_bytes(8, "little")


@pytest.mark.parametrize(
    "make_ids",
    [
        random_ids,
        rising_ids,
        rising_ids_of_the_other_order,
        ids_of_equal_heads,
        ids_of_equal_tails,
        ids_of_equal_words,
        ids_in_multiples,
    ],
)
def test_ids_of_every_make(make_ids: Callable[[Random], Iterator[bytes]]) -> None:
    """Against a dictionary: each id is used in two slots, and each use keeps its own sequence."""
    chance = Random(2)
    ledger = Ledger(accounts_max=4, ids_capacity_initial=16)
    ledger.register_currency("EUR", 2)
    accounts = [account_id(name, "EUR") for name in ("left", "right")]
    ids = make_ids(chance)
    uses = [
        (accounts[number % 2], identifier) for identifier in (next(ids) for _ in range(IDS_COUNT)) for number in (0, 1)
    ]
    chance.shuffle(uses)
    sequences: dict[tuple[bytes, bytes], int] = {}
    records = transfers(uses)
    assert ledger.find_events(records)[0].tolist() == [0] * len(uses)
    for start, end in stretches(chance, len(uses)):
        executed = ledger.execute(records[start:end], ledger.last_timestamp_ns + 1)
        assert len(executed.events) == end - start
        for use in uses[start:end]:
            sequences[use] = len(sequences) + 1
        picked = chance.choices(range(len(uses)), k=30)
        wanted = [sequences.get(uses[number], 0) for number in picked]
        assert ledger.find_events(records[picked])[0].tolist() == wanted
    assert len(sequences) == len(uses)
    assert ledger.find_events(records)[0].tolist() == [sequences[use] for use in uses]
    repeated = ledger.execute(records, ledger.last_timestamp_ns + 1)
    assert len(repeated.events) == 0
    assert set(repeated.results["flags"].tolist()) == {ResultFlag.REPEATED}
    assert repeated.results["position"].tolist() == [sequences[use] for use in uses]
    ledger.check_invariants()


@pytest.mark.parametrize("capacity", [2, 16])
def test_growth_that_starts_before_the_last_one_is_over(capacity: int) -> None:
    """Entries that are large beside the table, in every order of three sizes, leave no time to move the old slots."""
    uses = [(b"d" * 16, number.to_bytes(16, "big")) for number in range(1, 100)]
    records = transfers(uses)
    for first in range(1, 16):
        for second in range(1, 33):
            for third in (1, 2, 20):
                ledger = Ledger(accounts_max=2, ids_capacity_initial=capacity)
                start = 0
                for count_of_entry in (first, second, third, 1):
                    end = start + count_of_entry
                    ledger.execute(records[start:end], ledger.last_timestamp_ns + 1)
                    start = end
                sizes = f"entries of {first}, {second}, {third} and 1 commands"
                expect(sizes, ledger.find_events(records[:start])[0].tolist(), list(range(1, start + 1)))
                repeated = ledger.execute(records[:start], ledger.last_timestamp_ns + 1)
                expect(
                    sizes, (len(repeated.events), set(repeated.results["flags"].tolist())), (0, {ResultFlag.REPEATED})
                )


def test_closed_holds_take_no_room() -> None:
    """Made and released by the ten thousand, in a table of sixteen rows, whose index stays as large as it was."""
    ledger = Ledger(accounts_max=2, holds_max=16, ids_capacity_initial=16)
    ledger.register_currency("EUR", 2)
    ledger.execute(encode_commands([open_account("world", MAX), open_account("ann")]), 1)
    size = ledger._hold_index.bytes_count
    for number in range(GONE_COUNT):
        made = [hold("world", "ann", 1, number % 2, id=id_of(16 * number + place)) for place in range(16)]
        closed = [release("world", one.id) for one in made]
        executed = ledger.execute(encode_commands([*made, *closed]), ledger.last_timestamp_ns + 1)
        expect("codes", set(executed.results["code"].tolist()), {Code.COMMITTED})
    ledger.check_invariants()
    expect("open holds, and those with a deadline", (ledger.hold_count, ledger.holds_with_deadline), (0, 0))
    expect("whether the index has grown", ledger._hold_index.bytes_count <= 2 * size, True)


def test_accounts_that_were_taken_back_take_no_room() -> None:
    """Opened by chains that fall, thousands of them, in a table of four rows."""
    ledger = Ledger(accounts_max=4, holds_max=2, ids_capacity_initial=16)
    ledger.register_currency("EUR", 2)
    ledger.execute(encode_commands([open_account("ann")]), 1)
    size = ledger._account_index.bytes_count
    for number in range(GONE_COUNT):
        falls = linked(open_account(f"a-{number}"), open_account(f"b-{number}"), open_account("ann"))
        executed = ledger.execute(encode_commands(falls), ledger.last_timestamp_ns + 1)
        expect("last code", int(executed.results["code"][-1]), Code.ACCOUNT_EXISTS)
    ledger.check_invariants()
    expect("accounts", ledger.account_count, 1)
    expect("whether the index has grown", ledger._account_index.bytes_count <= 2 * size, True)


def transfers(uses: list[tuple[bytes, bytes]]) -> Records:
    """Transfers from accounts that do not exist: refused, and so an event and a use of the id each."""
    records = np.zeros(len(uses), COMMAND)
    records["kind"] = CommandKind.TRANSFER
    records["amount"] = 1
    for field, number in (("debit", 0), ("id", 1)):
        words = np.array([id_words(use[number]) for use in uses], np.int64)
        records[f"{field}_head"], records[f"{field}_tail"] = words[:, 0], words[:, 1]
    return records
