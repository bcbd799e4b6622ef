"""An import books every row once, whatever is repeated, and counts what is refused or differs."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bezant.cli.errors import InputFileError, OutcomeNotKnown
from bezant.cli.import_batches import COMMANDS_PER_ROW_MAX, build_batches
from bezant.cli.import_command import failures, overdraft_allowed, report_fields, report_lines
from bezant.cli.import_file import ImportFile
from bezant.cli.importing import BATCHES_IN_FLIGHT_MAX, EXAMPLES_MAX, ImportReport, submit_batches
from bezant.cli.pipeline import Submitter
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import ConnectionFailed
from bezant.protocol.frames import BATCH_COUNT_MAX
from bezant.protocol.kinds import CommandField
from bezant.protocol.records import RESULT, Records

DECIMALS = {"CZK": 2}
WriteCsv = Callable[..., Path]
GOOD_ROWS = [
    "1,1993-01-01,bank:cash,account:1,700.00,CZK,cash deposit,700.00,account:1,700.00",
    "2,1993-01-01,account:1,external:7,100.50,CZK,remittance out,100.50,account:1,599.50",
    "3,1993-01-02,bank:interest,account:1,0.50,CZK,interest,0.50,account:1,600.00",
]
OVERDRAWN = "4,1993-01-03,account:1,bank:cash,600.01,CZK,cash withdrawal,600.00,account:1,-0.01"


async def do_import(wallet: Submitter, path: Path, *patterns: str) -> tuple[ImportFile, ImportReport]:
    file = ImportFile(path, DECIMALS)
    batches = build_batches(file.rows(), overdraft_allowed(list(patterns)))
    return file, await submit_batches(wallet, batches, lambda _: None)


async def test_books_every_row_and_checks_every_balance(ledger, write_csv: WriteCsv) -> None:
    file, report = await do_import(ledger, write_csv(GOOD_ROWS))
    assert report.ok
    assert (report.rows, report.committed, report.repeated) == (3, 3, 0)
    assert (report.accounts_opened, report.accounts_existing) == (4, 0)
    assert (report.balances_checked, report.mismatches) == (3, 0)
    assert failures(report) == []
    assert "3 booked, 0 repeated, 0 refused" in report_lines(file, report)[0]


async def test_importing_again_changes_nothing(ledger, write_csv: WriteCsv) -> None:
    path = write_csv(GOOD_ROWS)
    await do_import(ledger, path)
    before = dict(ledger.balances)
    file, report = await do_import(ledger, path)
    assert report.ok
    assert (report.rows, report.committed, report.repeated) == (3, 0, 3)
    assert (report.accounts_opened, report.accounts_existing, report.balances_checked) == (0, 4, 3)
    assert ledger.balances == before
    assert report_fields(file, report)["repeated"] == 3


async def test_a_file_that_grew_books_the_new_rows_alone(ledger, write_csv: WriteCsv) -> None:
    await do_import(ledger, write_csv(GOOD_ROWS[:2]))
    _, report = await do_import(ledger, write_csv(GOOD_ROWS))
    assert report.ok
    assert (report.committed, report.repeated, report.accounts_opened) == (1, 2, 1)


async def test_an_overdraft_is_refused_counted_and_listed(ledger, write_csv: WriteCsv) -> None:
    path = write_csv([*GOOD_ROWS, OVERDRAWN])
    file, report = await do_import(ledger, path)
    assert not report.ok
    assert report.refused == {ResultCode.INSUFFICIENT_FUNDS: 1}
    assert (report.committed, report.balances_checked, report.mismatches) == (3, 3, 0)
    assert f"{path}:5: INSUFFICIENT_FUNDS: balance less held would fall below the limit" in report_lines(file, report)
    assert "--allow-overdraft" in failures(report)[0]
    assert report_fields(file, report)["refused"] == {"INSUFFICIENT_FUNDS": 1}


async def test_a_pattern_allows_the_overdraft(ledger, write_csv: WriteCsv) -> None:
    _, report = await do_import(ledger, write_csv([*GOOD_ROWS, OVERDRAWN]), "nothing", "account:*")
    assert report.ok
    assert report.balances_checked == 4


async def test_a_balance_that_differs_fails_the_import(ledger, write_csv: WriteCsv) -> None:
    wrong = GOOD_ROWS[1].replace("599.50", "599.49")
    path = write_csv([GOOD_ROWS[0], wrong, GOOD_ROWS[2]])
    file, report = await do_import(ledger, path)
    assert not report.ok
    assert (report.committed, report.balances_checked, report.mismatches) == (3, 3, 1)
    assert f"{path}:3: the engine's balance is 599.50, the bank recorded 599.49" in report_lines(file, report)
    assert "recorded: 1;" in failures(report)[0]


async def test_examples_are_bounded_and_counts_are_not(ledger, write_csv: WriteCsv) -> None:
    rows = [
        f"{number},1993-01-01,bank:cash,account:1,1.00,CZK,interest,1.00,account:1,-1.00"
        for number in range(EXAMPLES_MAX * 3)
    ]
    _, report = await do_import(ledger, write_csv(rows))
    assert report.mismatches == EXAMPLES_MAX * 3
    assert len(report.mismatch_examples) == EXAMPLES_MAX


async def test_the_same_transaction_with_other_content_is_a_conflict(ledger, write_csv: WriteCsv) -> None:
    path = write_csv([GOOD_ROWS[0], GOOD_ROWS[0].replace("700.00", "701.00")])
    file, report = await do_import(ledger, path)
    assert report.refused == {ResultCode.ID_CONFLICT: 1}
    assert report.refused_examples[0].field == CommandField.AMOUNT
    assert report_fields(file, report)["refused_examples"] == [{"line": 3, "code": "ID_CONFLICT", "field": "amount"}]


async def test_an_account_that_exists_with_another_limit_keeps_it_and_is_told(ledger, write_csv: WriteCsv) -> None:
    path = write_csv(GOOD_ROWS)
    await do_import(ledger, path)
    file, report = await do_import(ledger, path, "account:*")
    assert report.ok
    assert (report.accounts_existing, report.accounts_other_limit) == (4, 1)
    assert "1 accounts existed with another limit" in report_lines(file, report)[-1]


async def test_history_after_live_traffic_stops_at_once(ledger, write_csv: WriteCsv) -> None:
    ledger.last_timestamp_ns = 2**62
    _, report = await do_import(ledger, write_csv(GOOD_ROWS))
    assert not report.ok
    assert report.stopped_by == ResultCode.IMPORTED_TIMESTAMP_NOT_RISING
    assert "before live traffic" in failures(report)[0]


async def test_nothing_is_sent_after_a_command_that_was_not_executed(ledger, write_csv: WriteCsv) -> None:
    """History that is skipped can never be filled in, so only what was in flight already may follow the gap."""
    rows = [f"{number},1993-01-01,bank:cash,account:{number},1.00,CZK,,,," for number in range(60_000)]
    ledger.codes_forced[10] = ResultCode.OVERLOADED
    _, report = await do_import(ledger, write_csv(rows))
    assert report.stopped_by == ResultCode.OVERLOADED
    assert len(ledger.frames) == BATCHES_IN_FLIGHT_MAX
    assert "OVERLOADED" in failures(report)[0]
    assert "run the same import again" in failures(report)[0]


class Recorder:
    """Answers when no more frames may come, newest first: taking them out of order must not change anything."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []
        self.waiting_max = 0
        self.first_times_ns: list[int] = []

    async def submit(self, commands: Records, timeout_s: float | None = None) -> Records:
        self.first_times_ns.append(int(commands["client_timestamp_ns"][0]))
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(answered)
        self.waiting_max = max(self.waiting_max, len(self.waiting))
        is_last = len(commands) < BATCH_COUNT_MAX - COMMANDS_PER_ROW_MAX
        if len(self.waiting) == BATCHES_IN_FLIGHT_MAX or is_last:
            for waiting in reversed(self.waiting):
                waiting.set_result(None)
            self.waiting.clear()
        await answered
        return np.zeros(len(commands), RESULT)


async def test_batches_leave_in_order_and_a_bounded_number_waits(write_csv: WriteCsv) -> None:
    rows = [f"{number},1993-01-01,bank:cash,account:1,1.00,CZK,,,," for number in range(8_189 * 8)]
    recorder = Recorder()
    _, report = await asyncio.wait_for(do_import(recorder, write_csv(rows)), 30)
    assert report.committed == 8_189 * 8
    assert recorder.waiting_max == BATCHES_IN_FLIGHT_MAX
    assert recorder.first_times_ns == sorted(recorder.first_times_ns)


class Broken:
    """A connection that is lost for good."""

    async def submit(self, commands: Records, timeout_s: float | None = None) -> Records:
        raise ConnectionFailed("the node at 127.0.0.1:1 is gone")


async def test_a_lost_connection_says_that_the_import_can_be_run_again(write_csv: WriteCsv) -> None:
    with pytest.raises(OutcomeNotKnown, match="lost after 0 answered rows") as caught:
        await do_import(Broken(), write_csv(GOOD_ROWS))
    assert "run the same import again" in caught.value.next_step


async def test_a_file_that_breaks_while_it_is_sent_leaves_no_task_behind(ledger, write_csv: WriteCsv) -> None:
    with pytest.raises(InputFileError, match=r"books\.csv:5: "):
        await do_import(ledger, write_csv([*GOOD_ROWS, "4,1993-01-03"]))
    assert len(asyncio.all_tasks()) == 1


async def test_the_bank_file_agrees_to_the_last_balance(ledger, bank_file: Path) -> None:
    _, report = await do_import(ledger, bank_file, "account:*")
    assert report.ok
    assert report.rows == report.committed == report.balances_checked == 39_309


async def test_the_bank_file_without_overdraft_fails(ledger, bank_file: Path) -> None:
    _, report = await do_import(ledger, bank_file)
    assert report.refused[ResultCode.INSUFFICIENT_FUNDS] > 0
    assert report.mismatches > 0
