"""Claim: whatever a ledger refuses, the command line says what to do about it."""

import argparse
import string

import pytest

from bezant.cli.outcomes import NEXT_STEPS, _next_step
from bezant.protocol.codes import RESULT_CODES, CodeRow, ResultCode

REFUSALS = [row for row in RESULT_CODES if row.leaves_event and row.code != ResultCode.COMMITTED]


@pytest.mark.parametrize("row", REFUSALS, ids=[row.code.name for row in REFUSALS])
def test_every_refusal_has_a_next_step(row: CodeRow) -> None:
    arguments = argparse.Namespace(debit="a b", credit="c", currency="EUR", data="my books", connect="")
    step = _next_step(row.code, arguments)
    assert step
    assert not set(step) & set("{}")
    if "bezant balance" in step:
        assert step.endswith("bezant balance 'a b' EUR --data 'my books'")


def test_a_conflict_has_one_as_well() -> None:
    assert ResultCode.ID_CONFLICT in NEXT_STEPS


def test_steps_name_nothing_else() -> None:
    fields = {name for step in NEXT_STEPS.values() for _, name, _, _ in string.Formatter().parse(step) if name}
    assert fields == {"debit", "credit", "currency", "where"}
