"""The commands of an import are a function of the file alone, and rise in time."""

from collections.abc import Iterable

import numpy as np

from bezant.cli.import_batches import COMMANDS_PER_ROW_MAX, build_batches, open_id, transfer_id
from bezant.cli.import_file import CheckedSide, ImportRow
from bezant.protocol.frames import BATCH_COUNT_MAX
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.names import account_id, currency_word
from bezant.protocol.records import LIMIT_UNLIMITED, NAME_SIZE_MAX, Records, id_bytes

DAY_NS = 86_400_000_000_000
NAME_OFFSET = 32


def row(number: int, day: int, debit: str, credit: str, *, amount: int = 100, code: int = 0) -> ImportRow:
    return ImportRow(
        number + 1, str(number), day * DAY_NS, debit, credit, amount, "EUR", 2, code, CheckedSide.CREDIT, amount
    )


def all_commands(rows: Iterable[ImportRow]) -> Records:
    return np.concatenate([batch.commands for batch in build_batches(rows, lambda name: name.startswith("bank:"))])


def test_accounts_open_in_front_of_the_row_that_names_them() -> None:
    (batch,) = build_batches([row(1, 5, "bank:a", "x"), row(2, 5, "x", "y", code=3)], lambda name: name == "bank:a")
    commands = batch.commands
    assert commands["kind"].tolist() == [1, 1, 2, 1, 2]
    assert set(commands["flags"].tolist()) == {int(CommandFlag.IMPORTED)}
    assert batch.is_open.tolist() == [True, True, False, True, False]
    assert batch.lines.tolist() == [2, 2, 2, 3, 3]
    assert batch.row_count == 2
    assert commands["amount"].tolist() == [LIMIT_UNLIMITED, 0, 100, 0, 100]
    assert commands["code"].tolist() == [0, 0, 0, 0, 3]
    assert batch.checked_side.tolist() == [0, 0, 2, 0, 2]
    assert commands["currency"].tolist() == [currency_word("EUR")] * 2 + [0, currency_word("EUR"), 0]


def test_fields_say_who_pays_whom() -> None:
    commands = all_commands([row(1, 5, "bank:a", "x")])
    transfer = commands[2]
    assert id_bytes(transfer["id_head"], transfer["id_tail"]) == transfer_id("EUR", "1")
    assert id_bytes(transfer["debit_head"], transfer["debit_tail"]) == account_id("bank:a", "EUR")
    assert id_bytes(transfer["credit_head"], transfer["credit_tail"]) == account_id("x", "EUR")
    opening = commands[0]
    assert id_bytes(opening["id_head"], opening["id_tail"]) == open_id("EUR", "bank:a")
    assert id_bytes(opening["debit_head"], opening["debit_tail"]) == account_id("bank:a", "EUR")
    name = opening.tobytes()[NAME_OFFSET : NAME_OFFSET + NAME_SIZE_MAX]
    assert name == b"bank:a".ljust(NAME_SIZE_MAX, b"\0")
    assert opening["kind"] == CommandKind.OPEN


def test_times_rise_strictly_from_midnight_of_the_date() -> None:
    """A row that is dated before one above it gets the later time, and is counted."""
    batches = list(
        build_batches(
            [row(1, 5, "a", "b"), row(2, 5, "b", "a"), row(3, 7, "a", "b"), row(4, 6, "a", "b")], lambda _: False
        )
    )
    times = np.concatenate([batch.commands["client_timestamp_ns"] for batch in batches])
    fifth, seventh = 5 * DAY_NS, 7 * DAY_NS
    assert times.tolist() == [fifth, fifth + 1, fifth + 2, fifth + 3, seventh, seventh + 1]
    assert sum(batch.rows_moved for batch in batches) == 1


def test_the_first_day_of_1970_has_a_time_above_zero() -> None:
    assert all_commands([row(1, 0, "a", "b")])["client_timestamp_ns"].tolist() == [1, 2, 3]


def test_a_longer_file_begins_with_the_same_commands() -> None:
    """So a file can be imported again after rows were added to its end, and nothing is booked twice."""
    rows = [row(number, number // 3, f"a{number % 5}", f"b{number % 7}") for number in range(100)]
    part, whole = all_commands(rows[:60]), all_commands(rows)
    assert whole[: len(part)].tobytes() == part.tobytes()


def test_ids_are_for_ever() -> None:
    """A changed derivation would book every file twice; these are the ids that were given."""
    assert transfer_id("CZK", "695247").hex() == "260775c9a0d5f57365e7f365045dec80"
    assert open_id("CZK", "account:1").hex() == "683a718de6ba5e2f4b954564d7085b6e"
    assert transfer_id("CZK", "1") != transfer_id("EUR", "1")


def test_no_batch_is_longer_than_a_frame_may_be() -> None:
    """Rows whose accounts are all new are the worst case: three commands each."""
    row_count = BATCH_COUNT_MAX // COMMANDS_PER_ROW_MAX * 2 + 5
    rows = [row(number, 5, f"a{number}", f"b{number}") for number in range(row_count)]
    batches = list(build_batches(rows, lambda _: False))
    assert all(len(batch.commands) >= BATCH_COUNT_MAX - COMMANDS_PER_ROW_MAX for batch in batches[:-1])
    assert all(len(batch.commands) <= BATCH_COUNT_MAX for batch in batches)
    assert sum(batch.row_count for batch in batches) == row_count
    assert sum(len(batch.commands) for batch in batches) == 3 * row_count


def test_no_rows_make_no_batch() -> None:
    assert list(build_batches([], lambda _: False)) == []
