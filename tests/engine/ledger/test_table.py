"""What OPEN, TRANSFER and SET_LIMIT do to the books: one row per command, with its code and the balances after it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.errors import LedgerError, UsageError

from .model_records import Command, encode_commands
from .tables import MAX, Books, account, id_of, open_account, row, set_limit, transfer, words_of


def world(balance: int) -> list[Command]:
    """Opens two accounts without limit and brings them to minus and plus `balance`, through a third party."""
    return [open_account("low", MAX), open_account("high", MAX), transfer("low", "high", balance)]


# --- OPEN


def test_opened_accounts_are_empty_and_have_their_first_limit(books: Books) -> None:
    books.check(
        row(open_account("ann")),
        row(open_account("bob", 1)),
        row(open_account("eve", MAX - 1)),
        row(open_account("world", MAX)),
    )
    for name, limit in (("ann", 0), ("bob", 1), ("eve", MAX - 1), ("world", MAX)):
        found = books.find(name)
        assert (found["balance"], found["held"], found["incoming"], found["limit"]) == (0, 0, 0, limit)


def test_the_effective_amount_of_an_open_is_its_limit(books: Books) -> None:
    executed = books.run(open_account("ann", 1234), set_limit("ann", 55))
    assert executed.events["effective_amount"].tolist() == [1234, 55]


def test_opening_an_open_account_reports_its_balance(books: Books) -> None:
    books.fund(ann=100)
    books.check(
        row(open_account("ann"), Code.ACCOUNT_EXISTS, 100),
        row(open_account("ann", 50), Code.ACCOUNT_EXISTS, 100),
        row(open_account("world", 50), Code.ACCOUNT_EXISTS, -100),
        row(transfer("ann", "world", 101), Code.INSUFFICIENT_FUNDS, 100, -100),
    )
    assert books.find("ann")["limit"] == 0


def test_opening_twice_in_a_row_without_any_balance(books: Books) -> None:
    books.check(row(open_account("ann")), row(open_account("ann"), Code.ACCOUNT_EXISTS))


def test_the_same_name_in_another_currency_is_another_account(books: Books) -> None:
    books.check(row(open_account("ann")), row(open_account("ann/USD")), row(open_account("ann/JPY")))
    assert [books.find(name)["decimals"] for name in ("ann", "ann/USD", "ann/JPY")] == [2, 2, 0]


def test_currencies_that_nobody_registered(books: Books) -> None:
    refused = open_account("ann/POINTS")
    books.check(row(refused, Code.CURRENCY_UNKNOWN), row(refused, Code.CURRENCY_UNKNOWN, repeated=True))
    assert books.find("ann/POINTS")["found"] == 0
    books.subject.register_currency("POINTS", 7)
    books.check(row(refused, Code.CURRENCY_UNKNOWN, repeated=True), row(open_account("ann/POINTS")))
    assert books.find("ann/POINTS")["decimals"] == 7


def test_a_full_table_of_accounts(make_books: Callable[..., Books]) -> None:
    """A new account is turned away without an event or its id; everything else goes on."""
    books = make_books(accounts_max=2)
    last = open_account("eve")
    books.check(
        row(open_account("world", MAX)),
        row(open_account("eve/POINTS"), Code.CURRENCY_UNKNOWN),
        row(open_account("ann", id=id_of(1))),
        row(last, Code.ACCOUNTS_FULL),
        row(last, Code.ACCOUNTS_FULL),
        row(replace(last, amount=1), Code.ACCOUNTS_FULL),
        row(open_account("bob/POINTS"), Code.ACCOUNTS_FULL),
        row(open_account("eve", -1), Code.LIMIT_NEGATIVE),
        row(open_account("ann"), Code.ACCOUNT_EXISTS),
        row(open_account("ann", id=id_of(1)), repeated=True),
        row(transfer("world", "ann", 5, id=last.id), Code.COMMITTED, -5, 5),
        row(set_limit("ann", 1), Code.COMMITTED, 5),
        row(last, Code.ACCOUNTS_FULL),
    )
    assert books.subject.account_count == 2


# --- TRANSFER


def test_transfers_move_money_and_report_both_balances(books: Books) -> None:
    books.check(
        row(open_account("world", MAX)),
        row(open_account("ann")),
        row(open_account("bob")),
        row(transfer("world", "ann", 100), Code.COMMITTED, -100, 100),
        row(transfer("ann", "bob", 1), Code.COMMITTED, 99, 1),
        row(transfer("ann", "bob", 99), Code.COMMITTED, 0, 100),
        row(transfer("bob", "world", 40), Code.COMMITTED, 60, -60),
        row(transfer("bob", "ann", 60), Code.COMMITTED, 0, 60),
    )


def test_accounts_that_do_not_exist(books: Books) -> None:
    """The debit account is looked at first; the balance of the one that exists is reported."""
    books.fund(ann=100)
    books.check(
        row(transfer("nobody", "noone", 1), Code.DEBIT_ACCOUNT_UNKNOWN),
        row(transfer("nobody", "ann", 1), Code.DEBIT_ACCOUNT_UNKNOWN, 0, 100),
        row(transfer("ann", "nobody", 1), Code.CREDIT_ACCOUNT_UNKNOWN, 100, 0),
        row(transfer("ann", "nobody", 101), Code.CREDIT_ACCOUNT_UNKNOWN, 100, 0),
        row(transfer("ann/USD", "ann", 1), Code.DEBIT_ACCOUNT_UNKNOWN, 0, 100),
        row(transfer(bytes(16), "ann", 1), Code.DEBIT_ACCOUNT_UNKNOWN, 0, 100),
        row(transfer("ann", bytes(16), 1), Code.CREDIT_ACCOUNT_UNKNOWN, 100, 0),
        row(transfer(b"\xff" * 16, "ann", 1), Code.DEBIT_ACCOUNT_UNKNOWN, 0, 100),
        row(transfer("ann", b"\xff" * 16, 1), Code.CREDIT_ACCOUNT_UNKNOWN, 100, 0),
    )


def test_an_account_opened_too_late(books: Books) -> None:
    books.check(
        row(open_account("world", MAX)),
        row(transfer("world", "ann", 1), Code.CREDIT_ACCOUNT_UNKNOWN),
        row(open_account("ann")),
        row(transfer("world", "ann", 1), Code.COMMITTED, -1, 1),
    )


def test_currencies_do_not_mix(books: Books) -> None:
    """Whatever else is wrong: the currencies are compared before the funds."""
    books.fund(ann=100)
    books.check(
        row(open_account("ann/USD")),
        row(open_account("bob/JPY", MAX)),
        row(transfer("ann", "ann/USD", 1), Code.CURRENCY_MISMATCH, 100, 0),
        row(transfer("ann/USD", "ann", 1), Code.CURRENCY_MISMATCH, 0, 100),
        row(transfer("ann", "bob/JPY", 101), Code.CURRENCY_MISMATCH, 100, 0),
        row(transfer("bob/JPY", "ann", MAX), Code.CURRENCY_MISMATCH, 0, 100),
    )


@pytest.mark.parametrize("limit", [0, 1, 50, 2**62])
def test_funds_down_to_the_limit_exactly(books: Books, limit: int) -> None:
    books.fund(ann=100)
    books.run(set_limit("ann", limit))
    everything = 100 + limit
    books.check(
        row(transfer("ann", "world", everything + 1), Code.INSUFFICIENT_FUNDS, 100, -100),
        row(transfer("ann", "world", MAX), Code.INSUFFICIENT_FUNDS, 100, -100),
        row(transfer("ann", "world", everything), Code.COMMITTED, -limit, limit),
        row(transfer("ann", "world", 1), Code.INSUFFICIENT_FUNDS, -limit, limit),
        row(transfer("ann", "world", MAX), Code.INSUFFICIENT_FUNDS, -limit, limit),
        row(transfer("world", "ann", 1), Code.COMMITTED, limit - 1, 1 - limit),
        row(transfer("ann", "world", 1), Code.COMMITTED, -limit, limit),
    )


def test_amounts_up_to_the_largest(books: Books) -> None:
    """Down to -(2^63 - 1) and up to 2^63 - 1 in one go; one unit more is an overflow at either end."""
    books.check(
        row(open_account("low", MAX)),
        row(open_account("high", MAX)),
        row(open_account("ann", MAX)),
        row(transfer("low", "high", MAX), Code.COMMITTED, -MAX, MAX),
        row(transfer("low", "ann", 1), Code.BALANCE_OVERFLOW, -MAX, 0),
        row(transfer("ann", "high", 1), Code.BALANCE_OVERFLOW, 0, MAX),
        row(transfer("low", "high", 1), Code.BALANCE_OVERFLOW, -MAX, MAX),
        row(transfer("low", "high", MAX), Code.BALANCE_OVERFLOW, -MAX, MAX),
        row(transfer("low", "ann", MAX), Code.BALANCE_OVERFLOW, -MAX, 0),
        row(transfer("ann", "high", MAX), Code.BALANCE_OVERFLOW, 0, MAX),
        row(transfer("high", "low", MAX), Code.COMMITTED, 0, 0),
        row(transfer("high", "low", MAX), Code.COMMITTED, -MAX, MAX),
    )


@pytest.mark.parametrize("left", [1, 2, 2**62, MAX - 1])
def test_overflow_at_each_end_by_one_unit(books: Books, left: int) -> None:
    """With `left` units of room, `left` still go and one more does not; each end by itself."""
    books.run(*world(MAX - left), open_account("ann", MAX))
    books.check(
        row(transfer("low", "ann", left), Code.COMMITTED, -MAX, left),
        row(transfer("low", "ann", 1), Code.BALANCE_OVERFLOW, -MAX, left),
        row(transfer("ann", "low", left), Code.COMMITTED, 0, left - MAX),
        row(transfer("low", "ann", left + 1), Code.BALANCE_OVERFLOW, left - MAX, 0),
        row(transfer("ann", "high", left + 1), Code.BALANCE_OVERFLOW, 0, MAX - left),
        row(transfer("ann", "high", left), Code.COMMITTED, -left, MAX),
        row(transfer("ann", "high", 1), Code.BALANCE_OVERFLOW, -left, MAX),
    )


def test_the_largest_limit_that_is_a_limit(books: Books) -> None:
    """2^63 - 2 is an ordinary limit: below it funds are insufficient, though the balance would still fit."""
    books.run(open_account("ann", MAX - 1), open_account("world", MAX), open_account("bob", MAX))
    books.check(
        row(transfer("ann", "world", MAX), Code.INSUFFICIENT_FUNDS),
        row(transfer("ann", "world", MAX - 1), Code.COMMITTED, 1 - MAX, MAX - 1),
        row(transfer("ann", "bob", 1), Code.INSUFFICIENT_FUNDS, 1 - MAX, 0),
        row(transfer("ann", "bob", MAX), Code.INSUFFICIENT_FUNDS, 1 - MAX, 0),
        row(set_limit("ann", MAX), Code.COMMITTED, 1 - MAX),
        row(transfer("ann", "bob", 2), Code.BALANCE_OVERFLOW, 1 - MAX, 0),
        row(transfer("ann", "bob", 1), Code.COMMITTED, -MAX, 1),
    )


def test_sums_that_wrap_in_64_bits(books: Books) -> None:
    """Far below a limit that was lowered, balance less amount leaves 64 bits: it is still simply insufficient."""
    books.run(*world(MAX))
    books.check(
        row(set_limit("low", 0), Code.COMMITTED, -MAX),
        row(transfer("low", "high", MAX), Code.INSUFFICIENT_FUNDS, -MAX, MAX),
        row(transfer("low", "high", 2), Code.INSUFFICIENT_FUNDS, -MAX, MAX),
        row(transfer("low", "high", 1), Code.INSUFFICIENT_FUNDS, -MAX, MAX),
        row(set_limit("low", MAX - 1), Code.COMMITTED, -MAX),
        row(transfer("low", "high", MAX), Code.INSUFFICIENT_FUNDS, -MAX, MAX),
        row(transfer("low", "high", 1), Code.INSUFFICIENT_FUNDS, -MAX, MAX),
    )


def test_insufficient_funds_come_before_an_overflow_of_the_credit_account(books: Books) -> None:
    books.run(*world(MAX), open_account("ann"))
    books.check(
        row(transfer("ann", "high", 1), Code.INSUFFICIENT_FUNDS, 0, MAX),
        row(transfer("ann", "high", MAX), Code.INSUFFICIENT_FUNDS, 0, MAX),
        row(set_limit("ann", 1)),
        row(transfer("ann", "high", 1), Code.BALANCE_OVERFLOW, 0, MAX),
    )


# --- SET_LIMIT


def test_limits_change_and_balances_do_not(books: Books) -> None:
    books.fund(ann=100)
    books.check(
        row(set_limit("nobody", 1), Code.DEBIT_ACCOUNT_UNKNOWN),
        row(set_limit("ann/USD", 1), Code.DEBIT_ACCOUNT_UNKNOWN),
        row(set_limit(bytes(16), 1), Code.DEBIT_ACCOUNT_UNKNOWN),
        row(set_limit("ann", 5), Code.COMMITTED, 100),
        row(set_limit("ann", 5), Code.COMMITTED, 100),
        row(transfer("ann", "world", 105), Code.COMMITTED, -5, 5),
        row(set_limit("ann", 6), Code.COMMITTED, -5),
        row(transfer("ann", "world", 1), Code.COMMITTED, -6, 6),
        row(transfer("ann", "world", 1), Code.INSUFFICIENT_FUNDS, -6, 6),
    )
    assert books.find("ann")["limit"] == 6


def test_a_limit_below_what_is_used_refuses_debits_alone(books: Books) -> None:
    books.fund(ann=0, bob=10)
    books.check(
        row(set_limit("ann", 100)),
        row(transfer("ann", "bob", 80), Code.COMMITTED, -80, 90),
        row(set_limit("ann", 50), Code.COMMITTED, -80),
        row(transfer("ann", "bob", 1), Code.INSUFFICIENT_FUNDS, -80, 90),
        row(transfer("bob", "ann", 20), Code.COMMITTED, 70, -60),
        row(transfer("ann", "bob", 1), Code.INSUFFICIENT_FUNDS, -60, 70),
        row(transfer("bob", "ann", 11), Code.COMMITTED, 59, -49),
        row(transfer("ann", "bob", 2), Code.INSUFFICIENT_FUNDS, -49, 59),
        row(transfer("ann", "bob", 1), Code.COMMITTED, -50, 60),
        row(set_limit("ann", 0), Code.COMMITTED, -50),
        row(transfer("bob", "ann", 50), Code.COMMITTED, 10, 0),
        row(transfer("ann", "bob", 1), Code.INSUFFICIENT_FUNDS, 0, 10),
    )


def test_limits_without_end_come_and_go(books: Books) -> None:
    books.fund(ann=0)
    books.check(
        row(transfer("ann", "world", 1), Code.INSUFFICIENT_FUNDS),
        row(set_limit("ann", MAX)),
        row(transfer("ann", "world", MAX), Code.COMMITTED, -MAX, MAX),
        row(set_limit("ann", 0), Code.COMMITTED, -MAX),
        row(transfer("ann", "world", 1), Code.INSUFFICIENT_FUNDS, -MAX, MAX),
        row(transfer("world", "ann", MAX), Code.COMMITTED, 0, 0),
    )


# --- Chains, counts, positions, timestamps


@pytest.mark.parametrize("shard", [0, 1, 2047, 2048, 4095])
def test_back_pointers_chain_the_events_of_each_account(make_books: Callable[..., Books], shard: int) -> None:
    """Sequences 1 to 10; a refusal stands on no chain. Positions of the upper shards are negative words."""
    books = make_books(shard=shard)
    rows = [
        # command, code, debit and credit balance; then the sequences before it on both chains
        (row(open_account("world", MAX)), 0, 0),
        (row(open_account("ann")), 0, 0),
        (row(transfer("world", "ann", 10), Code.COMMITTED, -10, 10), 1, 2),
        (row(transfer("ann", "world", 11), Code.INSUFFICIENT_FUNDS, 10, -10), 0, 0),
        (row(open_account("ann"), Code.ACCOUNT_EXISTS, 10), 0, 0),
        (row(set_limit("ann", 1), Code.COMMITTED, 10), 3, 0),
        (row(transfer("ann", "nobody", 1), Code.CREDIT_ACCOUNT_UNKNOWN, 10), 0, 0),
        (row(transfer("ann", "world", 11), Code.COMMITTED, -1, 1), 6, 3),
        (row(set_limit("world", 5), Code.COMMITTED, 1), 8, 0),
        (row(transfer("world", "ann", 1), Code.COMMITTED, 0, 0), 9, 8),
    ]
    entries = [[one] for one in rows] if books.apart else [rows]
    for entry in entries:
        events = books.check_entry([one for one, _, _ in entry]).events
        for event, (_, debit, credit) in zip(events, entry, strict=True):
            assert event["debit_previous"] == (books.position(debit) if debit else 0)
            assert event["credit_previous"] == (books.position(credit) if credit else 0)
    for name, opened, last, count in (("world", 1, 10, 5), ("ann", 2, 10, 5)):
        found = books.find(name)
        assert found["opened_position"] == books.position(opened)
        assert found["last_position"] == books.position(last)
        assert found["event_count"] == count


def test_timestamps_count_the_events_of_an_entry(books: Books) -> None:
    """Commands that leave no event take no nanosecond."""
    rows = [
        row(open_account("world", MAX)),
        row(open_account("ann", -1), Code.LIMIT_NEGATIVE),
        row(open_account("ann")),
        row(transfer("ann", "world", 1), Code.INSUFFICIENT_FUNDS),
        row(transfer("ann", "ann", 1), Code.ACCOUNTS_EQUAL),
        row(transfer("world", "ann", 1), Code.COMMITTED, -1, 1),
    ]
    executed = books.check_entry(rows, at=5_000)
    assert executed.events["timestamp_ns"].tolist() == [5_000, 5_001, 5_002, 5_003]
    assert books.subject.last_timestamp_ns == 5_003
    assert books.check_entry([row(set_limit("ann", 1), Code.COMMITTED, 1)], at=5_004).events["timestamp_ns"] == [5_004]


def test_entries_without_events_change_nothing(books: Books) -> None:
    assert (books.subject.next_sequence, books.subject.last_timestamp_ns, books.subject.account_count) == (1, 0, 0)
    executed = books.check_entry([], at=5_000)
    assert (len(executed.events), len(executed.results)) == (0, 0)
    books.check_entry([row(transfer("ann", "ann", 1), Code.ACCOUNTS_EQUAL)], at=5_000)
    assert (books.subject.next_sequence, books.subject.last_timestamp_ns, books.subject.account_count) == (1, 0, 0)
    assert books.run(open_account("ann"), at=1).events["timestamp_ns"] == [1]


def test_time_does_not_stand_still(books: Books) -> None:
    """The clock is the caller's: an entry that is not later than the last event is the caller's bug."""
    books.run(open_account("ann"), open_account("bob"), at=5_000)
    commands = encode_commands([set_limit("ann", 1)])
    for timestamp_ns in (5_001, 5_000, 1, 0, -1):
        with pytest.raises(LedgerError):
            books.subject.execute(commands, timestamp_ns)
    assert (books.subject.next_sequence, books.subject.last_timestamp_ns) == (3, 5_001)
    books.run(set_limit("ann", 1), at=5_002)


def test_codes_that_are_set_before(books: Books) -> None:
    """A command that was refused before it came here is answered unseen: its id stays free."""
    books.fund(ann=100, bob=0)
    rows = [
        row(transfer("ann", "bob", 1, id=id_of(1)), Code.DEADLINE_PASSED),
        row(transfer("ann", "bob", 2, id=id_of(1)), Code.COMMITTED, 98, 2),
        row(transfer("ann", "bob", 2, id=id_of(1)), Code.OVERLOADED),
        row(transfer("ann", "bob", 2, id=id_of(1)), Code.COMMITTED, 98, 2, repeated=True),
        row(transfer("ann", "ann", 0, id=bytes(16), kind=99), Code.WRONG_SHARD),
    ]
    preset = [Code.DEADLINE_PASSED, 0, Code.OVERLOADED, 0, Code.WRONG_SHARD]
    executed = books.check_entry(rows, at=books.next_timestamp_ns(), preset=preset)
    assert len(executed.events) == 1


# --- Currencies


@pytest.mark.parametrize(
    ("code", "decimals"),
    [("EUR", 3), ("EUR", -1), ("NEW", -1), ("NEW", 19), ("", 2), ("new", 2), ("N W", 2), ("NINELONGS", 2)],
)
def test_currencies_that_cannot_be_registered(books: Books, code: str, decimals: int) -> None:
    with pytest.raises(UsageError):
        books.subject.register_currency(code, decimals)
    books.check(row(open_account("ann/NEW"), Code.CURRENCY_UNKNOWN), row(open_account("ann/EUR")))
    assert books.find("ann")["decimals"] == 2


def test_currencies_can_be_registered_again(books: Books) -> None:
    books.run(open_account("ann"))
    books.subject.register_currency("EUR", 2)
    books.subject.register_currency("ZERO", 0)
    books.subject.register_currency("MOST", 18)
    books.check(
        row(open_account("ann/ZERO")),
        row(open_account("ann/MOST")),
        row(open_account("ann/JPY")),
        row(open_account("ann"), Code.ACCOUNT_EXISTS),
    )
    assert [books.find(f"ann/{code}")["decimals"] for code in ("EUR", "ZERO", "MOST", "JPY")] == [2, 0, 18, 0]


# --- Look-ups


def test_accounts_are_found_in_the_order_asked(books: Books) -> None:
    books.fund(ann=100, bob=0)
    found = books.subject.lookup_accounts(
        words_of([account(name) for name in ("bob", "nobody", "ann", "ann", "world")])
    )
    assert found["found"].tolist() == [1, 0, 1, 1, 1]
    assert found["name"].tolist() == [b"bob", b"", b"ann", b"ann", b"world"]
    assert found["balance"].tolist() == [0, 0, 100, 100, -100]
    assert found[1].tobytes() == bytes(found.dtype.itemsize)
    assert len(books.subject.lookup_accounts(words_of([]))) == 0


def test_accounts_are_listed_in_the_order_of_opening(books: Books) -> None:
    names = [f"account-{number}" for number in range(10)]
    books.run(*(open_account(name) for name in names))
    encoded = [name.encode() for name in names]
    listed = books.subject.list_accounts
    assert listed(0, 100)["name"].tolist() == encoded
    assert listed(0, 3)["name"].tolist() == encoded[:3]
    assert listed(3, 3)["name"].tolist() == encoded[3:6]
    assert listed(9, 3)["name"].tolist() == encoded[9:]
    assert len(listed(10, 3)) == len(listed(50, 3)) == len(listed(0, 0)) == 0
    assert (
        listed(0, 10).tobytes() == books.subject.lookup_accounts(words_of([account(name) for name in names])).tobytes()
    )


def test_what_was_answered_before_stays_as_it_was(books: Books) -> None:
    """Arrays that were handed out are not overwritten by later work."""
    books.fund(ann=100)
    commands = encode_commands([transfer("world", "ann", 5)])
    first = books.subject.execute(commands, books.next_timestamp_ns())
    found = books.subject.lookup_accounts(words_of([account("ann")]))
    before = (first.events.tobytes(), first.results.tobytes(), found.tobytes())
    commands["amount"] = 0
    books.run(transfer("world", "ann", 6), set_limit("ann", 9))
    assert (first.events.tobytes(), first.results.tobytes(), found.tobytes()) == before
