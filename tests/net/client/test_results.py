"""Claim: records become results, accounts and events without losing or inventing anything."""

from typing import Any

import numpy as np
import pytest

from bezant.net.client.channel import CODE_UNKNOWN
from bezant.net.client.results import (
    RESULT_ROW,
    UNKNOWN_ROW,
    Outcome,
    accounts_of,
    event_of,
    result_of,
)
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.kinds import AccountFlag, CommandField, CommandFlag, CommandKind
from bezant.protocol.names import account_id, currency_word
from bezant.protocol.records import (
    ACCOUNT,
    EVENT,
    EVENT_ANSWER,
    LIMIT_UNLIMITED,
    RESULT,
    Records,
    id_bytes,
    id_words,
    position_of,
)

ID = bytes(range(1, 17))
ANN, BOB = account_id("ann", "EUR"), account_id("bob", "EUR")


def row_of(**values: int) -> Any:
    record = np.zeros(1, RESULT)
    for name, value in values.items():
        record[name] = value
    return RESULT_ROW.unpack(record.tobytes())


def test_a_row_has_the_fields_of_the_record_in_order() -> None:
    record = np.zeros(1, RESULT)
    for number, name in enumerate(RESULT.names):
        record[name] = number + 1
    assert RESULT_ROW.unpack(record.tobytes()) == record[0].item() == tuple(range(1, len(RESULT.names) + 1))


def test_a_committed_result() -> None:
    position = position_of(4095, 7)
    result = result_of(
        row_of(
            flags=1,
            position=position,
            timestamp_ns=5,
            effective_amount=1250,
            debit_balance=-1250,
            debit_held=1,
            credit_balance=1250,
            credit_held=2,
        ),
        ID,
        2,
    )
    assert (result.outcome, result.code, result.committed) == (Outcome.COMMITTED, ResultCode.COMMITTED, True)
    assert (result.repeated, result.conflict_field) == (True, None)
    assert (result.id, result.position, result.timestamp_ns) == (ID, position, 5)
    assert (result.amount_text, result.debit_balance_text, result.credit_balance_text) == ("12.50", "-12.50", "12.50")
    assert (result.debit_held_text, result.credit_held_text) == ("0.01", "0.02")


@pytest.mark.parametrize("code", [code for code in ResultCode if code is not ResultCode.COMMITTED])
def test_every_other_code_is_a_rejection(code: ResultCode) -> None:
    result = result_of(row_of(code=code), ID, 2)
    assert (result.outcome, result.code, result.committed) == (Outcome.REJECTED, code, False)
    assert result.position is None
    assert result.repeated is False


@pytest.mark.parametrize("code", [ResultCode.ID_CONFLICT, ResultCode.FIELD_NOT_ALLOWED])
def test_the_field_of_a_conflict_is_named(code: ResultCode) -> None:
    assert result_of(row_of(code=code, detail=CommandField.AMOUNT), ID, 2).conflict_field is CommandField.AMOUNT


def test_no_answer_is_an_unknown_outcome() -> None:
    result = result_of(UNKNOWN_ROW, ID, 2)
    assert (result.outcome, result.code, result.position, result.amount) == (Outcome.UNKNOWN, None, None, 0)
    assert row_of(code=CODE_UNKNOWN) == UNKNOWN_ROW


@pytest.mark.parametrize("values", [{"code": 9999}, {"code": ResultCode.ID_CONFLICT, "detail": 99}])
def test_numbers_of_a_later_version_are_not_guessed_at(values: dict[str, int]) -> None:
    with pytest.raises(RemoteProtocolError, match="does not know"):
        result_of(row_of(**values), ID, 2)


def account_record(**values: Any) -> Records:
    record = np.zeros(1, ACCOUNT)
    record["id_head"], record["id_tail"] = id_words(ANN)
    record["currency"] = currency_word("EUR")
    record["decimals"] = 2
    record["found"] = 1
    record["name"] = b"ann"
    for name, value in values.items():
        record[name] = value
    return record


def test_an_account() -> None:
    flags = AccountFlag.FROZEN | AccountFlag.HAS_INCOMING
    (account,) = accounts_of(
        account_record(balance=-500, held=25, incoming=7, limit=1000, flags=flags, event_count=3, last_position=9)
    )
    assert account is not None
    assert (account.name, account.currency, account.id, account.decimals) == ("ann", "EUR", ANN, 2)
    assert (account.balance_text, account.held_text, account.available_text) == ("-5.00", "0.25", "-5.25")
    assert (account.limit_text, account.unlimited, account.incoming) == ("10.00", False, 7)
    assert (account.frozen, account.closed) == (True, False)
    assert (account.event_count, account.opened_position, account.last_position) == (3, 0, 9)


def test_an_account_without_a_limit() -> None:
    (account,) = accounts_of(account_record(limit=LIMIT_UNLIMITED, flags=AccountFlag.CLOSED))
    assert account is not None
    assert (account.limit_text, account.unlimited, account.closed) == ("unlimited", True, True)


def test_an_account_that_was_not_found() -> None:
    assert accounts_of(np.zeros(2, ACCOUNT)) == [None, None]


def answer_of(**values: Any) -> Records:
    event = np.zeros(1, EVENT)
    for field, identifier in (("id", ID), ("debit", ANN), ("credit", BOB)):
        event[f"{field}_head"], event[f"{field}_tail"] = id_words(identifier)
    event["kind"] = CommandKind.TRANSFER
    for name, value in values.items():
        event[name] = value
    answer = np.zeros(1, EVENT_ANSWER)
    answer["found"] = 1
    answer["position"] = 42
    answer["event"] = event.tobytes()
    return answer


def test_an_event() -> None:
    event = event_of(
        answer_of(amount=1250, effective_amount=1000, debit_balance=-1, credit_balance=1, debit_previous=41, code=7), 2
    )
    assert event is not None
    assert (event.kind, event.result, event.committed) == (CommandKind.TRANSFER, ResultCode.COMMITTED, True)
    assert (event.id, event.debit, event.credit, event.name) == (ID, ANN, BOB, None)
    assert (event.position, event.debit_previous, event.credit_previous) == (42, 41, None)
    assert (event.amount_text, event.effective_amount_text) == ("12.50", "10.00")
    assert (event.debit_balance_text, event.credit_balance_text) == ("-0.01", "0.01")
    assert (event.code, event.imported) == (7, False)


def test_an_event_of_imported_history_that_was_refused() -> None:
    event = event_of(answer_of(flags=CommandFlag.IMPORTED, result=ResultCode.INSUFFICIENT_FUNDS), 2)
    assert event is not None
    assert (event.imported, event.result, event.committed) == (True, ResultCode.INSUFFICIENT_FUNDS, False)


def test_the_event_of_an_open_has_the_name_and_no_second_account() -> None:
    name = b"an account with a name of forty-eight characters".replace(b" ", b"_")
    parts = [name[at : at + 16] for at in (0, 16, 32)]
    words: dict[str, int] = {}
    for field, part in zip(("credit", "reference", "user_data"), parts, strict=True):
        words[f"{field}_head"], words[f"{field}_tail"] = id_words(part)
    event = event_of(answer_of(kind=CommandKind.OPEN, **words), 2)
    assert event is not None
    assert (event.name, event.debit) == (name.decode(), ANN)
    assert event.credit == event.reference == event.user_data == bytes(16)


def test_an_event_that_was_not_found() -> None:
    assert event_of(np.zeros(1, EVENT_ANSWER), 2) is None


@pytest.mark.parametrize("values", [{"kind": 99}, {"result": 9999}])
def test_an_event_of_a_later_version_is_not_guessed_at(values: dict[str, int]) -> None:
    with pytest.raises(RemoteProtocolError, match="does not know"):
        event_of(answer_of(**values), 2)


def test_ids_survive() -> None:
    assert id_bytes(*id_words(ID)) == ID
