"""Sends the batches of an import, several in flight and in their order, and compares every answer.

The order matters twice: an account is opened before it is used, and imported timestamps must rise. A node executes the
frames of one connection in the order in which they were sent, so batches may be in flight together; but when one
command of a batch was *not executed* (no room, not the leader, a timestamp that does not rise), nothing after the
batches in flight is sent, because history that is skipped can never be filled in.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bezant.cli.errors import OutcomeNotKnown
from bezant.cli.import_batches import ImportBatch
from bezant.cli.import_file import CheckedSide
from bezant.cli.pipeline import Pipeline, Submitter
from bezant.protocol.codes import CODE_ROW, ResultCode
from bezant.protocol.errors import ConnectionFailed
from bezant.protocol.kinds import CommandField, ResultFlag
from bezant.protocol.money import format_amount
from bezant.protocol.records import Records

BATCHES_IN_FLIGHT_MAX: Final = 4
"""Frames sent and not yet answered: enough to keep the node busy while the next rows are read."""

ANSWER_TIMEOUT_S: Final = 60.0
"""Seconds to wait for the answer to one frame, a reconnection included, before the import gives up."""

EXAMPLES_MAX: Final = 10
"""Refused rows, and mismatches, that a report shows one by one; the others are only counted."""

_NOT_EXECUTED: Final = frozenset(code for code in ResultCode if 100 <= code < 200)
_OPENING_EXISTS: Final = frozenset({ResultCode.ACCOUNT_EXISTS, ResultCode.ID_CONFLICT})


class RefusedRow(NamedTuple):
    """A row that the ledger refused; `field` is the one that differs from the first use of the id, if that is why."""

    line: int
    code: ResultCode
    field: CommandField


class Mismatch(NamedTuple):
    """A row after which the engine's balance was not the one that the bank recorded."""

    line: int
    engine: str
    recorded: str


@dataclass(slots=True)
class ImportReport:
    """What an import did. Every row that was sent is in exactly one of `committed`, `repeated` and `refused`."""

    rows: int = 0
    committed: int = 0
    repeated: int = 0
    refused: Counter[ResultCode] = field(default_factory=Counter)
    refused_examples: list[RefusedRow] = field(default_factory=list)
    accounts_opened: int = 0
    accounts_existing: int = 0
    accounts_other_limit: int = 0
    openings_refused: Counter[ResultCode] = field(default_factory=Counter)
    balances_checked: int = 0
    mismatches: int = 0
    mismatch_examples: list[Mismatch] = field(default_factory=list)
    rows_moved: int = 0
    stopped_by: ResultCode | None = None
    """The code of the first command that was not executed; rows after it were not sent."""

    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Every row is booked and every recorded balance is the engine's."""
        return not (self.refused or self.openings_refused or self.mismatches or self.stopped_by)


async def submit_batches(
    wallet: Submitter, batches: Iterable[ImportBatch], on_rows: Callable[[int], None]
) -> ImportReport:
    """Send batches in order, at most BATCHES_IN_FLIGHT_MAX unanswered, and report; `on_rows` hears of answered rows.

    Raises `OutcomeNotKnown` if the connection is lost for good, and whatever reading the batches raises.
    """
    report = ImportReport()
    started_s = time.perf_counter()
    pipeline: Pipeline[ImportBatch] = Pipeline(wallet, BATCHES_IN_FLIGHT_MAX, ANSWER_TIMEOUT_S)
    try:
        async with pipeline:
            # Asked of each batch before it is sent, so that nothing new is sent after a stop.
            wanted = takewhile(lambda _: report.stopped_by is None, batches)
            async for batch, results in pipeline.stream(wanted):
                take_results(report, batch, results)
                on_rows(batch.row_count)
    except ConnectionFailed as error:
        raise OutcomeNotKnown(
            f"the connection was lost after {report.rows:,} answered rows: {error}",
            "run the same import again: what is booked already is recognised and not booked twice",
        ) from error
    report.seconds = time.perf_counter() - started_s
    return report


def take_results(report: ImportReport, batch: ImportBatch, results: Records) -> None:
    """Add the results of one batch to the report."""
    codes = results["code"]
    repeated = (results["flags"] & ResultFlag.REPEATED) != 0
    done = codes == ResultCode.COMMITTED
    is_row = ~batch.is_open
    report.rows += batch.row_count
    report.rows_moved += batch.rows_moved
    report.committed += int(np.count_nonzero(is_row & done & ~repeated))
    report.repeated += int(np.count_nonzero(is_row & done & repeated))
    report.accounts_opened += int(np.count_nonzero(batch.is_open & done & ~repeated))
    report.accounts_existing += int(np.count_nonzero(batch.is_open & done & repeated))
    if not done.all():
        _take_refusals(report, batch, results, np.flatnonzero(~done))
    _check_balances(report, batch, results, done)


def _take_refusals(report: ImportReport, batch: ImportBatch, results: Records, indexes: Iterable[int]) -> None:
    for index in indexes:
        code = ResultCode(int(results["code"][index]))
        detail = int(results["detail"][index])
        if code in _NOT_EXECUTED and report.stopped_by is None:
            report.stopped_by = code
        if not batch.is_open[index]:
            report.refused[code] += 1
            if len(report.refused_examples) < EXAMPLES_MAX:
                field_that_differs = CommandField(detail if code == ResultCode.ID_CONFLICT else 0)
                report.refused_examples.append(RefusedRow(int(batch.lines[index]), code, field_that_differs))
        elif code in _OPENING_EXISTS:
            report.accounts_existing += 1
            if code == ResultCode.ID_CONFLICT and detail == CommandField.AMOUNT:
                report.accounts_other_limit += 1
        else:
            report.openings_refused[code] += 1


def _check_balances(report: ImportReport, batch: ImportBatch, results: Records, done: npt.NDArray[np.bool_]) -> None:
    """Compare the balance after every booked row with the one that the bank recorded, where it recorded one."""
    checked = done & (batch.checked_side != CheckedSide.NONE)
    is_debit = batch.checked_side == CheckedSide.DEBIT
    balances = np.where(is_debit, results["debit_balance"], results["credit_balance"])
    wrong = np.flatnonzero(checked & (balances != batch.recorded_balance))
    report.balances_checked += int(np.count_nonzero(checked))
    report.mismatches += len(wrong)
    for index in wrong[: EXAMPLES_MAX - len(report.mismatch_examples)]:
        decimals = int(batch.decimals[index])
        engine = format_amount(int(balances[index]), decimals)
        recorded = format_amount(int(batch.recorded_balance[index]), decimals)
        report.mismatch_examples.append(Mismatch(int(batch.lines[index]), engine, recorded))


def describe_refusal(code: ResultCode, differs: CommandField = CommandField.NONE) -> str:
    """A refusal in words: the code's name and meaning, and the field that differs in a conflict."""
    words = f"{code.name}: {CODE_ROW[code].meaning.partition(';')[0]}"
    return f"{words} ({differs.name.lower()} differs)" if differs else words
