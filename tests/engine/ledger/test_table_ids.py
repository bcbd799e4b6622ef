"""Exactly once: repeats, conflicts and the slots that ids live in; and the timestamps of imported history."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.kinds import CommandField, CommandFlag
from bezant.protocol.names import slot_of

from .tables import MAX, Books, account, id_of, imported, open_account, row, set_limit, transfer

TAGGED = ("{t}world", "{t}ann", "{t}bob")  # of one slot


@pytest.fixture
def funded(books: Books) -> Books:
    books.fund(ann=100, bob=0)
    return books


@pytest.fixture
def tagged(books: Books) -> Books:
    """Three accounts of one slot: ``{t}world`` without limit, ``{t}ann`` with 100 and ``{t}bob`` with nothing."""
    books.run(*(open_account(name, MAX if name == "{t}world" else 0) for name in TAGGED))
    books.run(transfer("{t}world", "{t}ann", 100))
    return books


# --- Repeats


def test_a_repeat_is_answered_with_the_first_outcome(funded: Books) -> None:
    """With its position, its timestamp and the balances as they were then, however often and however late."""
    opened, paid, limited = open_account("eve", 3), transfer("ann", "bob", 10), set_limit("ann", 5)
    funded.check(
        row(opened),
        row(paid, Code.COMMITTED, 90, 10),
        row(limited, Code.COMMITTED, 90),
        row(paid, Code.COMMITTED, 90, 10, repeated=True),
        row(transfer("ann", "bob", 30), Code.COMMITTED, 60, 40),
        row(transfer("bob", "eve", 4), Code.COMMITTED, 36, 4),
        row(set_limit("ann", 0), Code.COMMITTED, 60),
        row(paid, Code.COMMITTED, 90, 10, repeated=True),
        row(opened, Code.COMMITTED, 0, repeated=True),
        row(limited, Code.COMMITTED, 90, repeated=True),
        row(transfer("ann", "bob", 61), Code.INSUFFICIENT_FUNDS, 60, 36),
    )


def test_a_repeat_cannot_flip_a_refusal(funded: Books) -> None:
    """Each refusal stands after what caused it is gone; a new id then succeeds."""
    poor = transfer("ann", "bob", 101)
    no_debit = transfer("eve", "ann", 1)
    no_credit = transfer("ann", "eve", 1)
    no_account = set_limit("eve", 9)
    funded.check(
        row(poor, Code.INSUFFICIENT_FUNDS, 100, 0),
        row(no_debit, Code.DEBIT_ACCOUNT_UNKNOWN, 0, 100),
        row(no_credit, Code.CREDIT_ACCOUNT_UNKNOWN, 100, 0),
        row(no_account, Code.DEBIT_ACCOUNT_UNKNOWN),
        row(open_account("eve", 9)),
        row(transfer("world", "ann", 900), Code.COMMITTED, -1000, 1000),
        row(poor, Code.INSUFFICIENT_FUNDS, 100, 0, repeated=True),
        row(no_debit, Code.DEBIT_ACCOUNT_UNKNOWN, 0, 100, repeated=True),
        row(no_credit, Code.CREDIT_ACCOUNT_UNKNOWN, 100, 0, repeated=True),
        row(no_account, Code.DEBIT_ACCOUNT_UNKNOWN, repeated=True),
        row(transfer("ann", "bob", 101), Code.COMMITTED, 899, 101),
        row(transfer("eve", "ann", 1), Code.COMMITTED, -1, 900),
    )


def test_repeats_of_every_refusal(books: Books) -> None:
    exists, mismatch, overflow = open_account("low"), transfer("low", "low/USD", 1), transfer("low", "high", 1)
    unknown = open_account("low/POINTS")
    books.run(open_account("low", MAX), open_account("high"), open_account("low/USD"), transfer("low", "high", MAX))
    refused = [
        (exists, Code.ACCOUNT_EXISTS, -MAX, 0),
        (mismatch, Code.CURRENCY_MISMATCH, -MAX, 0),
        (overflow, Code.BALANCE_OVERFLOW, -MAX, MAX),
        (unknown, Code.CURRENCY_UNKNOWN, 0, 0),
    ]
    books.check(*(row(*one) for one in refused), *(row(*one, repeated=True) for one in refused))
    books.run(transfer("high", "low", MAX))
    books.subject.register_currency("POINTS", 0)
    books.check(*(row(*one, repeated=True) for one in refused))


def test_a_batch_of_nothing_but_one_command(funded: Books) -> None:
    paid = transfer("ann", "bob", 60)
    funded.check(
        row(paid, Code.COMMITTED, 40, 60), *(row(paid, Code.COMMITTED, 40, 60, repeated=True) for _ in range(50))
    )


# --- Conflicts


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"flags": int(CommandFlag.IMPORTED), "client_timestamp_ns": 1}, CommandField.FLAGS),
        ({"debit": account("{t}world")}, CommandField.DEBIT),
        ({"credit": account("{t}world")}, CommandField.CREDIT),
        ({"credit": account("{t}bob")[:15] + b"\x00"}, CommandField.CREDIT),
        ({"credit": b"\x00" + account("{t}bob")[1:]}, CommandField.CREDIT),
        ({"amount": 11}, CommandField.AMOUNT),
        ({"amount": 10 + 2**32}, CommandField.AMOUNT),
        ({"user_data": b"\x01" + bytes(15)}, CommandField.USER_DATA),
        ({"user_data": bytes(15) + b"\x80"}, CommandField.USER_DATA),
        ({"code": 1}, CommandField.CODE),
        ({"code": -1}, CommandField.CODE),
        ({"code": 1, "amount": 9}, CommandField.AMOUNT),
        ({"code": 1, "user_data": b"\x01" * 16}, CommandField.USER_DATA),
        ({"amount": 9, "credit": account("{t}world"), "code": 7}, CommandField.CREDIT),
        ({"amount": 9, "debit": account("{t}world"), "credit": account("{t}ann")}, CommandField.DEBIT),
        (
            {"flags": int(CommandFlag.IMPORTED), "client_timestamp_ns": MAX, "debit": account("{t}world")},
            CommandField.FLAGS,
        ),
    ],
)
def test_a_conflict_names_the_first_field_that_differs(
    tagged: Books, changes: dict[str, bytes | int], field: CommandField, late: bool
) -> None:
    first = transfer("{t}ann", "{t}bob", 10)
    conflict = row(replace(first, **changes), Code.ID_CONFLICT, field=field)
    tagged.check(row(first, Code.COMMITTED, 90, 10), *([] if late else [conflict]))
    tagged.check(
        row(transfer("{t}ann", "{t}bob", 10), Code.COMMITTED, 80, 20),
        conflict,
        row(first, Code.COMMITTED, 90, 10, repeated=True),
        conflict,
    )


def test_conflicts_between_kinds(tagged: Books) -> None:
    """The kind is compared before everything else, in all directions."""
    opened = open_account("{t}eve", 10, id=id_of(1))
    paid = transfer("{t}ann", "{t}bob", 10, id=id_of(2))
    limited = set_limit("{t}ann", 10, id=id_of(3))
    kind = CommandField.KIND
    tagged.check(
        row(opened),
        row(paid, Code.COMMITTED, 90, 10),
        row(limited, Code.COMMITTED, 90),
        row(replace(paid, id=id_of(1)), Code.ID_CONFLICT, field=kind),
        row(replace(limited, id=id_of(1)), Code.ID_CONFLICT, field=kind),
        row(replace(opened, id=id_of(2)), Code.ID_CONFLICT, field=kind),
        row(replace(limited, id=id_of(2)), Code.ID_CONFLICT, field=kind),
        row(replace(opened, id=id_of(3)), Code.ID_CONFLICT, field=kind),
        row(replace(paid, id=id_of(3)), Code.ID_CONFLICT, field=kind),
    )


def test_conflicts_of_an_open(tagged: Books) -> None:
    """Another name or currency is another account, so the debit account is what differs first."""
    first = open_account("{t}eve", 10, code=4)
    tagged.check(
        row(first),
        row(open_account("{t}eva", 10, code=4, id=first.id), Code.ID_CONFLICT, field=CommandField.DEBIT),
        row(open_account("{t}eve/USD", 10, code=4, id=first.id), Code.ID_CONFLICT, field=CommandField.DEBIT),
        row(open_account("{t}eve/NONE", 10, code=4, id=first.id), Code.ID_CONFLICT, field=CommandField.DEBIT),
        row(replace(first, amount=11), Code.ID_CONFLICT, field=CommandField.AMOUNT),
        row(replace(first, code=5), Code.ID_CONFLICT, field=CommandField.CODE),
        row(imported(first, 1), Code.ID_CONFLICT, field=CommandField.FLAGS),
        row(first, repeated=True),
    )


def test_conflicts_of_a_limit(tagged: Books) -> None:
    first = set_limit("{t}ann", 10, code=4)
    tagged.check(
        row(first, Code.COMMITTED, 100),
        row(replace(first, debit=account("{t}bob")), Code.ID_CONFLICT, field=CommandField.DEBIT),
        row(replace(first, debit=account("{t}nobody")), Code.ID_CONFLICT, field=CommandField.DEBIT),
        row(replace(first, amount=MAX), Code.ID_CONFLICT, field=CommandField.AMOUNT),
        row(replace(first, user_data=b"u" * 16), Code.ID_CONFLICT, field=CommandField.USER_DATA),
        row(replace(first, code=5), Code.ID_CONFLICT, field=CommandField.CODE),
        row(first, Code.COMMITTED, 100, repeated=True),
    )
    assert tagged.find("{t}ann")["limit"] == 10


def test_conflicts_with_refused_commands(funded: Books) -> None:
    """A refusal uses up its id just as a commit does."""
    refused = transfer("ann", "bob", 101)
    funded.check(
        row(refused, Code.INSUFFICIENT_FUNDS, 100, 0),
        row(replace(refused, amount=100), Code.ID_CONFLICT, field=CommandField.AMOUNT),
        row(refused, Code.INSUFFICIENT_FUNDS, 100, 0, repeated=True),
    )


def test_a_conflict_does_not_become_the_first_use(funded: Books) -> None:
    first = transfer("ann", "bob", 10)
    other = replace(first, amount=11)
    funded.check(
        row(first, Code.COMMITTED, 90, 10),
        row(other, Code.ID_CONFLICT, field=CommandField.AMOUNT),
        row(other, Code.ID_CONFLICT, field=CommandField.AMOUNT),
        row(first, Code.COMMITTED, 90, 10, repeated=True),
    )


# --- Slots


def test_equal_ids_in_different_slots_are_independent(funded: Books) -> None:
    assert len({slot_of(account(name)) for name in ("ann", "bob", "world", "eve", "nobody")}) == 5
    funded.check(
        row(transfer("ann", "bob", 10, id=id_of(1)), Code.COMMITTED, 90, 10),
        row(transfer("bob", "ann", 10, id=id_of(1)), Code.COMMITTED, 0, 100),
        row(transfer("world", "ann", 10, id=id_of(1)), Code.COMMITTED, -110, 110),
        row(open_account("eve", id=id_of(1))),
        row(set_limit("nobody", 1, id=id_of(1)), Code.DEBIT_ACCOUNT_UNKNOWN),
        row(transfer("ann", "bob", 10, id=id_of(1)), Code.COMMITTED, 90, 10, repeated=True),
        row(transfer("bob", "ann", 10, id=id_of(1)), Code.COMMITTED, 0, 100, repeated=True),
        row(transfer("bob", "ann", 11, id=id_of(1)), Code.ID_CONFLICT, field=CommandField.AMOUNT),
        row(set_limit("nobody", 1, id=id_of(1)), Code.DEBIT_ACCOUNT_UNKNOWN, repeated=True),
    )


def test_slots_are_told_apart_by_all_of_their_12_bits(funded: Books) -> None:
    """Debit accounts of no existence that differ in one bit of the slot, then in the bit after it."""
    first = bytes(16)
    funded.check(row(set_limit(first, 1, id=id_of(1)), Code.DEBIT_ACCOUNT_UNKNOWN))
    for bit in range(12):
        other = (1 << 127 - bit).to_bytes(16, "big")
        funded.check(row(set_limit(other, 1, id=id_of(1)), Code.DEBIT_ACCOUNT_UNKNOWN))
    for bit in range(12, 128):
        other = (1 << 127 - bit).to_bytes(16, "big")
        funded.check(row(set_limit(other, 1, id=id_of(1)), Code.ID_CONFLICT, field=CommandField.DEBIT))


@pytest.mark.parametrize("bit", range(0, 128, 5))
def test_ids_that_differ_in_one_bit_are_different(funded: Books, bit: int) -> None:
    other = (int.from_bytes(id_of(1), "big") ^ 1 << bit).to_bytes(16, "big")
    funded.check(
        row(transfer("ann", "bob", 10, id=id_of(1)), Code.COMMITTED, 90, 10),
        row(transfer("ann", "bob", 10, id=other), Code.COMMITTED, 80, 20),
        row(transfer("ann", "bob", 10, id=id_of(1)), Code.COMMITTED, 90, 10, repeated=True),
        row(transfer("ann", "bob", 10, id=other), Code.COMMITTED, 80, 20, repeated=True),
    )


# --- Imported history


def test_imported_events_keep_their_timestamps(books: Books) -> None:
    """Any rise will do, from 1 up to the nanosecond before the entry; the next ordinary event is at the entry's."""
    commands = [
        imported(open_account("world", MAX), 1),
        imported(open_account("ann"), 2),
        imported(transfer("world", "ann", 10), 700),
        imported(set_limit("ann", 5), 4_999),
        transfer("world", "ann", 10),
    ]
    executed = books.run(*commands, at=5_000)
    assert executed.events["timestamp_ns"].tolist() == [1, 2, 700, 4_999, 5_004]
    assert books.subject.last_timestamp_ns == 5_004


def test_imported_timestamps_rise(books: Books) -> None:
    """Equal and falling are turned away without an event or the id, and the same id can come again."""
    late = imported(open_account("bob"), 2_000)
    executed = books.check_entry(
        [
            row(imported(open_account("world", MAX), 2_000)),
            row(late, Code.IMPORTED_TIMESTAMP_NOT_RISING),
            row(replace(late, client_timestamp_ns=1_999), Code.IMPORTED_TIMESTAMP_NOT_RISING),
            row(replace(late, client_timestamp_ns=1), Code.IMPORTED_TIMESTAMP_NOT_RISING),
            row(replace(late, client_timestamp_ns=2_001)),
            row(replace(late, client_timestamp_ns=2_001), repeated=True),
        ],
        at=5_000,
    )
    assert executed.events["timestamp_ns"].tolist() == [2_000, 2_001]
    books.check_entry(
        [
            row(imported(open_account("ann"), 2_001), Code.IMPORTED_TIMESTAMP_NOT_RISING),
            row(imported(open_account("ann"), 2_002)),
        ],
        at=6_000,
    )


@pytest.mark.parametrize("timestamp_ns", [5_000, 5_001, 6_000, MAX])
def test_imported_timestamps_in_the_future(books: Books, timestamp_ns: int) -> None:
    """The entry's own timestamp is the future already."""
    command = imported(open_account("ann"), timestamp_ns)
    books.check_entry(
        [
            row(command, Code.IMPORTED_TIMESTAMP_IN_FUTURE),
            row(replace(command, client_timestamp_ns=4_999)),
            row(command, Code.ID_CONFLICT, field=CommandField.CLIENT_TIMESTAMP_NS),
        ],
        at=5_000,
    )


def test_nothing_is_imported_after_an_ordinary_event_of_its_entry(books: Books) -> None:
    """The ordinary one has the entry's timestamp: what is not above it is not rising, what is above is the future."""
    books.check_entry(
        [
            row(open_account("world", MAX)),
            row(imported(open_account("ann"), 4_999), Code.IMPORTED_TIMESTAMP_NOT_RISING),
            row(imported(open_account("ann"), 5_000), Code.IMPORTED_TIMESTAMP_IN_FUTURE),
            row(imported(open_account("ann"), 5_001), Code.IMPORTED_TIMESTAMP_IN_FUTURE),
        ],
        at=5_000,
    )
    books.check_entry([row(imported(open_account("ann"), 5_001))], at=6_000)


def test_imported_refusals_are_events_too(books: Books) -> None:
    """They take their timestamp and their id: the next must be later, and a repeat is answered however old."""
    refused = imported(transfer("ann", "bob", 1), 3_000)
    books.check_entry(
        [
            row(refused, Code.DEBIT_ACCOUNT_UNKNOWN),
            row(imported(open_account("ann"), 3_000), Code.IMPORTED_TIMESTAMP_NOT_RISING),
            row(imported(open_account("ann"), 3_001)),
            row(refused, Code.DEBIT_ACCOUNT_UNKNOWN, repeated=True),
        ],
        at=5_000,
    )
    books.check_entry([row(refused, Code.DEBIT_ACCOUNT_UNKNOWN, repeated=True)], at=6_000)


def test_known_ids_are_looked_up_before_imported_timestamps(books: Books) -> None:
    first = imported(open_account("ann", 5), 3_000)
    books.run(first, at=5_000)
    books.check_entry(
        [
            row(first, repeated=True),
            row(replace(first, client_timestamp_ns=3_001), Code.ID_CONFLICT, field=CommandField.CLIENT_TIMESTAMP_NS),
            row(replace(first, client_timestamp_ns=MAX), Code.ID_CONFLICT, field=CommandField.CLIENT_TIMESTAMP_NS),
            row(replace(first, client_timestamp_ns=1, amount=6), Code.ID_CONFLICT, field=CommandField.AMOUNT),
            row(replace(first, flags=0, client_timestamp_ns=0), Code.ID_CONFLICT, field=CommandField.FLAGS),
        ],
        at=6_000,
    )


def test_imported_timestamps_come_before_a_full_table(make_books: Callable[..., Books]) -> None:
    books = make_books(accounts_max=1)
    books.run(open_account("ann"), at=5_000)
    books.check_entry(
        [
            row(imported(open_account("bob"), 6_000), Code.IMPORTED_TIMESTAMP_IN_FUTURE),
            row(imported(open_account("bob"), 5_000), Code.IMPORTED_TIMESTAMP_NOT_RISING),
            row(imported(open_account("bob"), 5_001), Code.ACCOUNTS_FULL),
            row(imported(open_account("bob", -1), 6_000), Code.LIMIT_NEGATIVE),
            row(imported(set_limit("ann", 1), 5_001)),
        ],
        at=6_000,
    )
