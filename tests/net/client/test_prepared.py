"""Claim: a command that was made is the record that its kind takes, whole and linked, and nothing else."""

import inspect
from decimal import Decimal
from itertools import count

import numpy as np
import pytest

from bezant.net.client.prepared import Command, CommandMaker
from bezant.net.client.results import UNLIMITED
from bezant.net.client.wallet import Wallet
from bezant.protocol.errors import InvalidAmountOrName, UsageError
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.names import account_id
from bezant.protocol.records import COMMAND, LIMIT_UNLIMITED, id_bytes

HOLD_ID = bytes(range(1, 17))
ANN, BOB = account_id("ann", "EUR"), account_id("bob", "EUR")
TWO_ACCOUNTS = {"debit": ANN, "credit": BOB, "amount": 1250}


@pytest.fixture
def maker() -> CommandMaker:
    """Makes commands whose ids are 1, 2, 3 and so on."""
    numbers = count(1)
    return CommandMaker(lambda: next(numbers).to_bytes(16, "big"))


def fields(record: bytes) -> dict[str, object]:
    """The fields that are not zero, ids joined; without those that every command has."""
    command = np.frombuffer(record, COMMAND)[0]
    found: dict[str, object] = {}
    for name in COMMAND.names or ():
        base = name.removesuffix("_head").removesuffix("_tail")
        value = id_bytes(command[f"{base}_head"], command[f"{base}_tail"]) if base != name else int(command[name])
        if value not in (0, bytes(16)):
            found[base] = value
    assert len(found.pop("id")) == 16
    return found


@pytest.mark.parametrize(
    ("kind", "arguments", "options", "expected"),
    [
        ("transfer", ("ann", "bob", "12.50", "EUR"), {}, TWO_ACCOUNTS | {"kind": CommandKind.TRANSFER}),
        (
            "transfer_available",
            ("ann", "bob", Decimal("12.50"), "EUR"),
            {},
            TWO_ACCOUNTS | {"kind": CommandKind.TRANSFER_AVAILABLE},
        ),
        ("hold", ("ann", "bob", "12.50", "EUR"), {}, TWO_ACCOUNTS | {"kind": CommandKind.HOLD}),
        (
            "hold",
            ("ann", "bob", "12.50", "EUR"),
            {"hold_timeout_ms": 1500},
            TWO_ACCOUNTS | {"kind": CommandKind.HOLD, "timeout_ms": 1500},
        ),
        (
            "capture",
            (HOLD_ID, "ann", "bob", "EUR"),
            {},
            {"kind": CommandKind.CAPTURE, "debit": ANN, "credit": BOB, "reference": HOLD_ID},
        ),
        (
            "capture",
            (HOLD_ID, "ann", "bob", "EUR"),
            {"amount": "12.50", "keep_open": True},
            TWO_ACCOUNTS | {"kind": CommandKind.CAPTURE, "reference": HOLD_ID, "flags": CommandFlag.KEEP_OPEN},
        ),
        ("release", (HOLD_ID, "ann", "EUR"), {}, {"kind": CommandKind.RELEASE, "debit": ANN, "reference": HOLD_ID}),
        ("set_limit", ("ann", "EUR", "0"), {}, {"kind": CommandKind.SET_LIMIT, "debit": ANN}),
        (
            "set_limit",
            ("ann", "EUR", UNLIMITED),
            {},
            {"kind": CommandKind.SET_LIMIT, "debit": ANN, "amount": LIMIT_UNLIMITED},
        ),
        ("freeze", ("ann", "EUR"), {}, {"kind": CommandKind.FREEZE, "debit": ANN}),
        ("unfreeze", ("ann", "EUR"), {}, {"kind": CommandKind.UNFREEZE, "debit": ANN}),
        ("close_account", ("ann", "EUR"), {}, {"kind": CommandKind.CLOSE, "debit": ANN}),
    ],
)
def test_every_kind_fills_its_fields_and_no_other(
    maker: CommandMaker,
    kind: str,
    arguments: tuple[object, ...],
    options: dict[str, object],
    expected: dict[str, object],
) -> None:
    command: Command = getattr(maker, kind)(*arguments, **options)
    assert fields(command.encode(2)) == expected
    linked = expected | {"flags": int(expected.get("flags", 0)) | CommandFlag.LINKED}  # type: ignore[call-overload]
    assert fields(command.encode(2, linked=True)) == linked
    own = getattr(maker, kind)(*arguments, **options, user_data=b"why", code=-7)
    assert fields(own.encode(2)) == expected | {"user_data": b"why".ljust(16, b"\0"), "code": -7}


def test_an_open_has_its_name_and_can_be_linked(maker: CommandMaker) -> None:
    command = maker.open_account("ann", "EUR", limit="5", code=9)
    record = np.frombuffer(command.encode(2, linked=True), COMMAND)[0]
    assert command.encode(2)[32:80].rstrip(b"\0") == b"ann"
    assert (record["kind"], record["flags"], record["amount"], record["code"]) == (1, CommandFlag.LINKED, 500, 9)


def test_ids_are_made_or_given(maker: CommandMaker) -> None:
    assert maker.freeze("ann", "EUR").id == (1).to_bytes(16, "big")
    assert maker.freeze("ann", "EUR", id=HOLD_ID).id == HOLD_ID
    for wrong in (b"", bytes(17), "text"):
        with pytest.raises(UsageError, match="16 bytes"):
            maker.freeze("ann", "EUR", id=wrong)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="16 bytes"):
            maker.release(wrong, "ann", "EUR")  # type: ignore[arg-type]


@pytest.mark.parametrize("amount", ["0", "0.00", Decimal("0"), "-0"])
def test_a_capture_of_nothing_does_not_become_one_of_everything(maker: CommandMaker, amount: str | Decimal) -> None:
    command = maker.capture(HOLD_ID, "ann", "bob", "EUR", amount=amount)
    with pytest.raises(InvalidAmountOrName, match="leave the amount out"):
        command.encode(2)


@pytest.mark.parametrize("amount", ["1.234", 5, 1.5, UNLIMITED])
def test_what_cannot_be_written_is_refused_when_it_is_sent(maker: CommandMaker, amount: object) -> None:
    for command in (
        maker.hold("ann", "bob", amount, "EUR"),  # type: ignore[arg-type]
        maker.capture(HOLD_ID, "ann", "bob", "EUR", amount=amount),  # type: ignore[arg-type]
        maker.transfer_available("ann", "bob", amount, "EUR"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidAmountOrName):
            command.encode(2)
    with pytest.raises(InvalidAmountOrName):
        maker.freeze("two words", "EUR").encode(2)


def test_it_makes_what_the_wallet_does_with_the_same_arguments() -> None:
    """All of them but the deadline, which belongs to the call."""
    for name, method in vars(CommandMaker).items():
        if not name.startswith("_"):
            theirs = dict(inspect.signature(getattr(Wallet, name)).parameters)
            del theirs["timeout_s"]
            assert str(dict(inspect.signature(method).parameters)) == str(theirs), name
