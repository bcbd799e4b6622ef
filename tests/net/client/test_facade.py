"""Claim: the front door has exactly these names, and opening it, or connecting through it, loads no engine."""

import subprocess
import sys

import pytest

import bezant
from bezant.protocol import errors

NAMES = [
    "UNLIMITED",
    "AccessDenied",
    "Account",
    "ArchiveUnavailable",
    "BezantError",
    "BlockingSubscription",
    "BlockingWallet",
    "Command",
    "ConnectionFailed",
    "CorruptLog",
    "Currency",
    "DataFolderInUse",
    "Event",
    "HistoryIncomplete",
    "InvalidAmountOrName",
    "LedgerError",
    "LocalProtocolError",
    "Outcome",
    "OutcomeUnknown",
    "ProtocolError",
    "Receipt",
    "ReceiptInvalid",
    "RemoteProtocolError",
    "RequestRefused",
    "RequestTimedOut",
    "Result",
    "ResultCode",
    "StorageError",
    "Subscription",
    "TransactionLeg",
    "TransactionMode",
    "TransactionResult",
    "UnsupportedFormat",
    "UsageError",
    "Wallet",
    "check_receipt",
    "connect",
    "connect_blocking",
    "open",
]

LOADED = """
import sys
import bezant
names = {"numba", "llvmlite", "rocksdict", "bezant.engine", "numpy", "uvloop", "asyncio"}
heavy = lambda: sorted(names & set(sys.modules))
alone = heavy()
for name in bezant.__all__:
    getattr(bezant, name)
bezant.connect("127.0.0.1:7420")
bezant.open("a-folder-that-is-not-touched")
print(alone, heavy())
"""


def test_these_are_the_names() -> None:
    assert bezant.__all__ == NAMES
    assert set(NAMES) <= set(dir(bezant))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_says_what_it_is(name: str) -> None:
    value = getattr(bezant, name)
    assert value is getattr(bezant, name)
    assert value.__doc__


def test_all_exceptions_of_the_protocol_are_there() -> None:
    own = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert own <= set(NAMES)
    assert all(getattr(bezant, name) is getattr(errors, name) for name in own)


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'conect'"):
        bezant.conect  # type: ignore[attr-defined]  # noqa: B018


def test_a_client_loads_no_engine() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert done.stdout == "[] ['asyncio', 'numpy', 'uvloop']\n"
