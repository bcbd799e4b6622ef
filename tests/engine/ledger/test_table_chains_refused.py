"""Linked chains without a trace: malformed, not executed, repeated. No event, and no id that was not used before."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.kinds import CHAIN_COMMANDS_MAX, CommandField, CommandFlag

from .model_records import NO_ID, Command
from .tables import (
    MAX,
    Books,
    Row,
    capture,
    chain,
    forbid,
    hold,
    id_of,
    imported,
    linked,
    open_account,
    release,
    row,
    set_limit,
    transfer,
)

NOT_EXECUTED: Final = Code.CHAIN_MEMBER_NOT_EXECUTED
IN_PART: Final = Code.CHAIN_REPEATED_IN_PART
UNTERMINATED: Final = Code.CHAIN_UNTERMINATED
HELD: Final = id_of(1)


@pytest.fixture
def funded(books: Books) -> Books:
    books.fund(ann=100, bob=0)
    return books


def check_no_trace(books: Books, rows: list[Row], preset: list[int] | None = None) -> None:
    """The rows of an entry are answered so, and leave everything as it was."""
    subject = books.subject
    before = (subject.list_accounts(0, 100).tobytes(), subject.next_sequence, subject.hold_count)
    books.check_entry(rows, preset=preset)
    assert (subject.list_accounts(0, 100).tobytes(), subject.next_sequence, subject.hold_count) == before


def payments(count: int) -> list[Command]:
    """Commands that commit, alone or together."""
    return [transfer("ann", "bob", 1) for _ in range(count)]


def linked_throughout(commands: list[Command]) -> list[Command]:
    """Even the last is linked to a next one."""
    return [replace(one, flags=one.flags | CommandFlag.LINKED) for one in commands]


def all_with(commands: list[Command], code: Code) -> list[Row]:
    return [row(command, code) for command in commands]


# --- Chains that do not end


@pytest.mark.parametrize("count", [1, 2, 3, CHAIN_COMMANDS_MAX + 5])
def test_a_chain_without_an_end(funded: Books, count: int) -> None:
    """It takes all that is left of the entry; what came before it is executed."""
    commands = linked_throughout(payments(count))
    check_no_trace(funded, all_with(commands, UNTERMINATED))
    rows = [row(transfer("ann", "bob", 1), Code.COMMITTED, 99, 1), *all_with(commands, UNTERMINATED)]
    funded.check_entry(rows)


def test_a_missing_end_comes_before_everything_else_that_is_wrong(funded: Books) -> None:
    once, malformed = transfer("ann", "bob", 1), transfer("ann", "bob", 0)
    funded.run(known := transfer("ann", "bob", 1))
    commands = linked_throughout([once, once, malformed, known])
    check_no_trace(funded, all_with(commands, UNTERMINATED))
    check_no_trace(funded, all_with(commands, UNTERMINATED), preset=[0, Code.DEADLINE_PASSED, 0, 0])


def test_a_chain_that_does_not_end_in_its_frame(funded: Books) -> None:
    """Whoever joined the frames has marked it, and so the next frame's commands are not taken for its end."""
    rows = [
        *all_with(linked_throughout(payments(3)), UNTERMINATED),
        row(transfer("ann", "bob", 1), Code.COMMITTED, 99, 1),
        *chain([row(transfer("ann", "bob", 1), Code.COMMITTED, 98, 2), row(payments(1)[0], Code.COMMITTED, 97, 3)]),
        *all_with(linked_throughout(payments(2)), UNTERMINATED),
        *all_with(linked_throughout(payments(2)), UNTERMINATED),
    ]
    funded.check_entry(rows, preset=[int(UNTERMINATED)] * 3 + [0] * 3 + [int(UNTERMINATED)] * 2 + [0] * 2)


# --- Codes of all


@pytest.mark.parametrize("number", range(3))
def test_a_code_that_was_set_before_is_that_of_all(funded: Books, number: int) -> None:
    """It comes before what is wrong with the commands. The ids stay free."""
    commands = linked(*payments(3))
    preset = [0, 0, 0]
    preset[number] = int(Code.DEADLINE_PASSED)
    check_no_trace(funded, all_with(commands, Code.DEADLINE_PASSED), preset=preset)
    malformed = linked(*payments(2), transfer("ann", "bob", 0))
    check_no_trace(funded, all_with(malformed, Code.DEADLINE_PASSED), preset=preset)
    too_long = linked(*payments(CHAIN_COMMANDS_MAX + 1))
    check_no_trace(funded, all_with(too_long, Code.DEADLINE_PASSED), preset=[*preset, *[0] * (len(too_long) - 3)])
    funded.run(*commands)


def test_of_two_codes_that_were_set_the_first_counts(funded: Books) -> None:
    preset = [0, int(Code.OVERLOADED), int(Code.DEADLINE_PASSED)]
    check_no_trace(funded, all_with(linked(*payments(3)), Code.OVERLOADED), preset=preset)


@pytest.mark.parametrize("count", [CHAIN_COMMANDS_MAX + 1, CHAIN_COMMANDS_MAX + 2, 2 * CHAIN_COMMANDS_MAX])
def test_chains_that_are_too_long(funded: Books, count: int) -> None:
    commands = linked(*payments(count))
    check_no_trace(funded, all_with(commands, Code.CHAIN_TOO_LONG))
    check_no_trace(funded, all_with([commands[0], *commands], Code.CHAIN_TOO_LONG))
    malformed = [replace(commands[0], amount=0), *commands[1:]]
    check_no_trace(funded, all_with(malformed, Code.CHAIN_TOO_LONG))
    funded.run(*linked(*commands[-100:]))


# --- Malformed commands


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"kind": 7}, Code.KIND_UNKNOWN, CommandField.NONE),
        ({"kind": 99}, Code.KIND_UNKNOWN, CommandField.NONE),
        ({"reserved": 1}, Code.RESERVED_NOT_ZERO, CommandField.NONE),
        ({"id": NO_ID}, Code.ID_INVALID, CommandField.NONE),
        ({"client_timestamp_ns": 5}, Code.TIMESTAMP_INVALID, CommandField.NONE),
        ({"currency": 1}, Code.FIELD_NOT_ALLOWED, CommandField.CURRENCY),
        ({"reference": HELD, "currency": 1}, Code.FIELD_NOT_ALLOWED, CommandField.REFERENCE),
        ({"amount": 0}, Code.AMOUNT_NOT_POSITIVE, CommandField.NONE),
    ],
)
def test_a_malformed_command_keeps_its_code(
    funded: Books, number: int, fields: dict[str, bytes | int], code: Code, field: CommandField
) -> None:
    commands = payments(3)
    commands[number] = replace(commands[number], **fields)
    rows = [row(command, NOT_EXECUTED) for command in commands]
    rows[number] = row(commands[number], code, field=field)
    check_no_trace(funded, chain(rows))
    commands[number] = replace(commands[number], **{name: getattr(transfer("ann", "bob", 1), name) for name in fields})
    funded.run(*linked(*commands))


def test_the_first_malformed_command_alone_keeps_its_code(funded: Books) -> None:
    rows = [
        row(transfer("ann", "bob", 1), NOT_EXECUTED),
        row(transfer("ann", "ann", 1), Code.ACCOUNTS_EQUAL),
        row(transfer("ann", "bob", 0), NOT_EXECUTED),
    ]
    check_no_trace(funded, chain(rows))


def test_a_command_that_cannot_be_linked(funded: Books) -> None:
    rows = [row(transfer("ann", "bob", 1), NOT_EXECUTED), row(forbid("ann", id_of(9)), Code.FLAGS_UNKNOWN)]
    check_no_trace(funded, chain([*rows, row(transfer("ann", "bob", 1), NOT_EXECUTED)]))


# --- Ids twice


@pytest.mark.parametrize(("first", "second"), [(0, 1), (0, 3), (1, 2), (2, 3)])
def test_an_id_twice_in_a_chain(funded: Books, first: int, second: int) -> None:
    """Whatever it is used for, in the same content or another."""
    for other in (transfer("ann", "bob", 1), set_limit("ann", 5), hold("ann", "bob", 7)):
        commands = payments(4)
        commands[second] = replace(other, id=commands[first].id)
        check_no_trace(funded, all_with(linked(*commands), IN_PART))


def test_the_same_id_in_another_slot_is_another_id(funded: Books) -> None:
    rows = [
        row(transfer("ann", "bob", 1, id=HELD), Code.COMMITTED, 99, 1),
        row(transfer("world", "bob", 1, id=HELD), Code.COMMITTED, -101, 2),
    ]
    funded.check(*chain(rows))


def test_which_comes_first_an_id_twice_or_a_malformed_command(funded: Books) -> None:
    """The chain is read from its start, and each command looked at by itself before its id."""
    good, malformed = transfer("ann", "bob", 1), transfer("ann", "bob", 0)
    check_no_trace(funded, all_with(linked(good, good, malformed), IN_PART))
    rows = [row(good, NOT_EXECUTED), row(malformed, Code.AMOUNT_NOT_POSITIVE), row(good, NOT_EXECUTED)]
    check_no_trace(funded, chain(rows))
    rows = [row(good, NOT_EXECUTED), row(replace(malformed, id=good.id), Code.AMOUNT_NOT_POSITIVE)]
    check_no_trace(funded, chain(rows))


# --- What cannot be executed now


def test_imported_times_within_a_chain(funded: Books) -> None:
    """Each must be above that of the command before it, as if that had been executed."""
    now_ns = funded.subject.last_timestamp_ns
    commands = payments(3)

    def timed(*times_ns: int) -> list[Command]:
        return [imported(one, now_ns + time_ns) for one, time_ns in zip(commands, times_ns, strict=True)]

    for times_ns, culprit, code in (
        ((5, 5, 6), 1, Code.IMPORTED_TIMESTAMP_NOT_RISING),
        ((5, 6, 4), 2, Code.IMPORTED_TIMESTAMP_NOT_RISING),
        ((0, 1, 2), 0, Code.IMPORTED_TIMESTAMP_NOT_RISING),
        ((1, 2, 100), 2, Code.IMPORTED_TIMESTAMP_IN_FUTURE),
        ((1, 100, 3), 1, Code.IMPORTED_TIMESTAMP_IN_FUTURE),
        ((200, 2, 1), 0, Code.IMPORTED_TIMESTAMP_IN_FUTURE),
    ):
        rows = [row(one, code if number == culprit else NOT_EXECUTED) for number, one in enumerate(timed(*times_ns))]
        funded.check_entry(chain(rows), at=now_ns + 100)
    events = funded.run(*linked(*timed(1, 2, 99)), at=now_ns + 100).events
    assert events["timestamp_ns"].tolist() == [now_ns + 1, now_ns + 2, now_ns + 99]


def test_nothing_is_imported_after_an_ordinary_command_of_its_chain(funded: Books) -> None:
    now_ns = funded.subject.last_timestamp_ns
    for time_ns, code in (
        (99, Code.IMPORTED_TIMESTAMP_NOT_RISING),
        (100, Code.IMPORTED_TIMESTAMP_IN_FUTURE),
        (101, Code.IMPORTED_TIMESTAMP_IN_FUTURE),
    ):
        ordinary, second = payments(2)
        rows = [row(ordinary, NOT_EXECUTED), row(imported(second, now_ns + time_ns), code)]
        funded.check_entry(chain(rows), at=now_ns + 100)
    first, ordinary = payments(2)
    events = funded.run(*linked(imported(first, now_ns + 99), ordinary), at=now_ns + 100).events
    assert events["timestamp_ns"].tolist() == [now_ns + 99, now_ns + 101]


def test_a_chain_for_whose_accounts_there_is_no_room(make_books: Callable[..., Books]) -> None:
    """New accounts are counted, and those that are there are not."""
    books = make_books(accounts_max=4)
    books.fund(ann=100, bob=0)
    ann, eve, dan = open_account("ann"), open_account("eve"), open_account("dan")
    check_no_trace(books, chain([row(eve, NOT_EXECUTED), row(dan, Code.ACCOUNTS_FULL), row(ann, NOT_EXECUTED)]))
    rows = [row(eve, Code.CHAIN_MEMBER_REFUSED), row(ann, Code.ACCOUNT_EXISTS, 100)]
    books.check(*chain(rows), *chain([row(open_account("eve")), row(transfer("ann", "eve", 1), Code.COMMITTED, 99, 1)]))
    check_no_trace(books, chain([row(transfer("ann", "bob", 1), NOT_EXECUTED), row(dan, Code.ACCOUNTS_FULL)]))
    exists = row(open_account("ann"), Code.ACCOUNT_EXISTS, 99)
    books.check(*chain([row(set_limit("ann", 1), Code.CHAIN_MEMBER_REFUSED, 99), exists]))


def test_a_chain_that_opens_an_account_twice(make_books: Callable[..., Books]) -> None:
    """Neither was there before the chain, so room is asked for both."""
    commands = [open_account("eve"), open_account("eve")]
    books = make_books(accounts_max=2)
    books.run(open_account("world"))
    check_no_trace(books, chain([row(commands[0], NOT_EXECUTED), row(commands[1], Code.ACCOUNTS_FULL)]))
    books = make_books(accounts_max=3)
    books.run(open_account("world"))
    books.check(*chain([row(commands[0], Code.CHAIN_MEMBER_REFUSED), row(commands[1], Code.ACCOUNT_EXISTS)]))


def test_a_chain_for_whose_holds_there_is_no_room(make_books: Callable[..., Books]) -> None:
    """A hold that the chain itself closes makes none, and one that it makes takes some all the same."""
    books = make_books(holds_max=2)
    books.fund(ann=100, bob=0)
    made = [hold("ann", "bob", 1) for _ in range(3)]
    not_executed = [row(command, NOT_EXECUTED) for command in made]
    check_no_trace(books, chain([*not_executed[:2], row(made[2], Code.HOLDS_FULL)]))
    books.run(hold("ann", "bob", 50, id=HELD))
    rows = [row(release("ann", HELD), NOT_EXECUTED), row(made[0], NOT_EXECUTED), row(made[1], Code.HOLDS_FULL)]
    check_no_trace(books, chain(rows))
    captured = row(capture("ann", "bob", made[0].id), NOT_EXECUTED)
    check_no_trace(books, chain([not_executed[0], captured, row(made[1], Code.HOLDS_FULL)]))
    released = row(release("ann", HELD), Code.COMMITTED, 100, held=1, effective=50)
    books.check(
        *chain([row(made[0], Code.COMMITTED, 100, 0, held=51), released]),
        row(made[1], Code.COMMITTED, 100, 0, held=2),
        row(made[2], Code.HOLDS_FULL),
    )


# --- Repeats


def test_a_chain_that_is_repeated_as_a_whole(funded: Books) -> None:
    """Standing or fallen, at once or later: each command gets its first outcome."""
    limited = row(set_limit("ann", 5), Code.COMMITTED, 90)
    stands = chain([row(transfer("ann", "bob", 10), Code.COMMITTED, 90, 10), limited])
    refused = row(transfer("ann", "bob", 99), Code.INSUFFICIENT_FUNDS, 90, 10)
    falls = chain([row(transfer("ann", "bob", 10), Code.CHAIN_MEMBER_REFUSED, 90, 10), refused])
    repeated = [replace(one, repeated=True) for one in (*stands, *falls)]
    funded.check(*stands, *falls, *repeated)
    funded.check(row(transfer("world", "ann", 500), Code.COMMITTED, -600, 590), *repeated, *repeated)


def test_a_chain_that_is_repeated_in_part(funded: Books) -> None:
    """Any mixture of known ids and new ones: nothing is executed, not even what would have been a repeat."""
    first, second, third = linked(*payments(3))
    funded.run(first, second, third)
    new = transfer("ann", "bob", 1)
    for commands in (
        [first, second, third, new],
        [first, new],
        [new, second, third],
        [first, replace(second, amount=2), new],
        [replace(first, amount=2), new],
    ):
        check_no_trace(funded, all_with(linked(*commands), IN_PART))
    funded.run(new)


def test_a_part_of_a_chain_whose_ids_are_all_known(funded: Books) -> None:
    """What comes under a known id with the same content is a repeat, in whatever company it first came."""
    first, second, third = linked(*payments(3))
    alone = transfer("ann", "bob", 7)
    other = chain([row(payments(1)[0], Code.COMMITTED, 89, 11), row(set_limit("bob", 1), Code.COMMITTED, 11)])
    rows = [
        row(first, Code.COMMITTED, 99, 1),
        row(second, Code.COMMITTED, 98, 2),
        row(third, Code.COMMITTED, 97, 3),
        row(alone, Code.COMMITTED, 90, 10),
        *other,
    ]
    funded.check(*rows)
    first, second, third, alone, *_ = (replace(one, repeated=True) for one in rows)
    other = [replace(one, repeated=True) for one in other]
    funded.check(
        third,
        *(second, third),
        *(second, first, third),
        *(first, alone),
        *(other[0], third),
        *(first, second, other[0], other[1]),
    )


def test_a_chain_with_known_ids_and_other_content(funded: Books) -> None:
    """The first that differs is named, with its field and without a position; the others are told that much."""
    first, second, third = linked(*payments(3))
    funded.run(first, second, third)
    differs, more = replace(second, amount=2), replace(third, code=5)
    conflict = row(differs, Code.ID_CONFLICT, field=CommandField.AMOUNT)
    check_no_trace(funded, [row(first, IN_PART), conflict, row(third, IN_PART)])
    check_no_trace(funded, [row(first, IN_PART), conflict, row(more, IN_PART)])
    conflict = row(more, Code.ID_CONFLICT, field=CommandField.CODE)
    check_no_trace(funded, [row(first, IN_PART), row(second, IN_PART), conflict])
    unlinked = replace(second, flags=0)
    check_no_trace(funded, [row(first, IN_PART), row(unlinked, Code.ID_CONFLICT, field=CommandField.FLAGS)])
    relinked = replace(third, flags=int(CommandFlag.LINKED))
    rows = [row(first, IN_PART), row(relinked, Code.ID_CONFLICT, field=CommandField.FLAGS), row(unlinked, IN_PART)]
    check_no_trace(funded, rows)


def test_known_ids_are_looked_up_before_time_and_room(make_books: Callable[..., Books]) -> None:
    books = make_books(accounts_max=2)
    now_ns = 1_000
    commands = linked(imported(open_account("ann"), now_ns), imported(open_account("bob"), now_ns + 1))
    books.run(*commands, at=2_000)
    check_no_trace(books, [row(one, repeated=True) for one in commands])
    later = linked(commands[0], imported(open_account("eve"), MAX))
    check_no_trace(books, all_with(later, IN_PART))
