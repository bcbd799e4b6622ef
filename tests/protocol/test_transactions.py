"""Claim: the ids of the legs of a transaction are its own, told by a rule, and as late as it is itself."""

import blake3
import pytest

from bezant.protocol.errors import UsageError
from bezant.protocol.names import IdMaker, account_id
from bezant.protocol.transactions import TransactionMode, leg_ids

DEBIT = account_id("shop", "EUR")


def test_the_first_leg_has_the_id_of_the_transaction() -> None:
    identifier = IdMaker().make()
    ids = leg_ids(identifier, DEBIT, 256)
    assert ids[0] == identifier
    assert len(set(ids)) == 256
    assert ids[:3] == leg_ids(identifier, DEBIT, 3)
    assert not set(ids[1:]) & set(leg_ids(identifier, account_id("other", "EUR"), 256)[1:])


def test_an_id_with_a_time_gives_ids_with_that_time() -> None:
    identifier = IdMaker().make()
    for one in leg_ids(identifier, DEBIT, 9):
        assert (one[:6], one[6] >> 4, one[8] >> 6) == (identifier[:6], 7, 2)


def test_the_rule_is_the_one_that_is_written_down() -> None:
    identifier = bytes(range(16))
    made = bytearray(blake3.blake3(b"bezant transaction" + identifier + DEBIT + b"\x02\x00").digest(16))
    made[6] = made[6] & 0x0F | 0x80
    made[8] = made[8] & 0x3F | 0x80
    assert leg_ids(identifier, DEBIT, 3)[2] == bytes(made)


def test_modes_have_names() -> None:
    assert [TransactionMode.of(mode) for mode in ("tcc", "SAGA", TransactionMode.TCC, 2)] == [1, 2, 1, 2]  # type: ignore[arg-type]
    for wrong in ("", "both", 3):
        with pytest.raises(UsageError):
            TransactionMode.of(wrong)  # type: ignore[arg-type]
