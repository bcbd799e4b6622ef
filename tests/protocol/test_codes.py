"""Claim: the result-code table has one row for every code, and each row keeps the promises of its range."""

from enum import IntEnum, IntFlag

import numpy as np
import pytest

from bezant.protocol import frames, kinds
from bezant.protocol.codes import CODE_ROW, RESULT_CODES, CodeRow, ResultCode
from bezant.protocol.frames import CLOSES_CONNECTION, FrameError, FrameFlag, Operation
from bezant.protocol.kinds import AccountFlag, CommandFlag, CommandKind, EntryKind
from bezant.protocol.records import ACCOUNT, COMMAND, ENTRY_HEADER, EVENT, RESULT

MALFORMED, NOT_EXECUTED, CONFLICT, REFUSED = range(1, 100), range(100, 200), range(200, 300), range(300, 1000)
every_row = pytest.mark.parametrize("row", RESULT_CODES, ids=[row.code.name for row in RESULT_CODES])


def test_the_table_has_exactly_one_row_for_every_code_in_order_of_precedence() -> None:
    assert [row.code for row in RESULT_CODES] == list(ResultCode)
    assert list(ResultCode) == sorted(ResultCode)
    assert {int(row.code): row for row in RESULT_CODES} == CODE_ROW


@every_row
def test_the_columns_keep_the_promises_of_the_range(row: CodeRow) -> None:
    assert row.leaves_event == row.uses_id, "an id is used up by its event and by nothing else"
    if row.code == ResultCode.COMMITTED:
        assert (row.leaves_event, row.retry_helps, row.http_status) == (True, False, 200)
    elif row.code in MALFORMED:
        assert (row.leaves_event, row.retry_helps, row.http_status) == (False, False, 400)
    elif row.code in NOT_EXECUTED:
        assert not row.leaves_event
        assert row.retry_helps or row.code in {ResultCode.IMPORTED_TIMESTAMP_NOT_RISING, ResultCode.FORBIDDEN}
    elif row.code == ResultCode.UNDECIDED:
        assert (row.leaves_event, row.retry_helps, row.http_status) == (True, True, 202)
    elif row.code in CONFLICT:
        assert (row.leaves_event, row.retry_helps, row.http_status) == (False, False, 409)
    else:
        assert row.code in REFUSED
        assert (row.leaves_event, row.retry_helps) == (True, False), "a retry must never flip an outcome"


@every_row
def test_every_row_says_what_it_means_and_has_a_status_of_its_kind(row: CodeRow) -> None:
    assert row.meaning
    assert row.meaning[0].islower()
    assert not row.meaning.endswith(".")
    assert row.http_status in (200, 202) or 400 <= row.http_status < 600
    assert row.http_status < 500 or row.retry_helps, "a 5xx invites a retry"


def test_an_account_that_is_closed_exists() -> None:
    """OPEN is answered ACCOUNT_EXISTS for it as well."""
    assert "closed" in CODE_ROW[ResultCode.ACCOUNT_EXISTS].meaning


def widest(dtype: np.dtype[np.void], field: str) -> int:
    return int(np.iinfo(dtype[field]).max)


def test_numbers_fit_the_fields_that_hold_them() -> None:
    assert max(ResultCode) <= min(widest(RESULT, "code"), widest(EVENT, "result"))
    assert max(CommandKind) <= widest(COMMAND, "kind")
    assert max(EntryKind) <= widest(ENTRY_HEADER, "kind")
    assert sum(CommandFlag) <= widest(COMMAND, "flags")
    assert sum(AccountFlag) <= widest(ACCOUNT, "flags")
    assert sum(kinds.ResultFlag) <= widest(RESULT, "flags")
    assert max(Operation) < 2**8
    assert sum(FrameFlag) < 2**16


@pytest.mark.parametrize("module", [kinds, frames])
def test_zero_means_nothing_and_flags_are_single_bits(module: object) -> None:
    """A record of zeros, such as the end of a segment, must never read as something valid."""
    enums = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, IntEnum)]
    for enum in enums:
        assert all(int(member) > 0 or member.name == "NONE" for member in enum), enum
    flags = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, IntFlag)]
    assert flags
    for flag in flags:
        assert all(int(member).bit_count() == 1 for member in flag), flag


def test_only_errors_after_which_nothing_can_be_trusted_close_the_connection() -> None:
    assert set(FrameError) - CLOSES_CONNECTION == {
        FrameError.OPERATION_UNKNOWN,
        FrameError.BODY_MALFORMED,
        FrameError.REQUEST_REFUSED,
        FrameError.OVERLOADED,
        FrameError.NOT_LEADER,
        FrameError.OUTCOME_UNKNOWN,
        FrameError.BEHIND,
        FrameError.WRONG_SHARD,
        FrameError.FORBIDDEN,
    }
