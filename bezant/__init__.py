"""Bezant: an event-sourced, durable, verifiable digital-wallet engine. This is its front door.

    async with bezant.connect("127.0.0.1:7420") as wallet:
        result = await wallet.transfer("wallet:ann", "wallet:bob", "12.50", "EUR")

`connect` talks to a node, `connect_blocking` does so without await, `open` keeps a ledger in this very process. Names
are loaded when they are first used, so that importing this, or connecting, loads no engine.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bezant.net.client.blocking import BlockingSubscription, BlockingWallet
    from bezant.net.client.channel import OutcomeUnknown
    from bezant.net.client.opening import connect, connect_blocking, open  # noqa: A004 - bezant.open is meant
    from bezant.net.client.prepared import Command
    from bezant.net.client.results import UNLIMITED, Account, Event, Outcome, Result
    from bezant.net.client.subscription import Subscription
    from bezant.net.client.transactions import TransactionLeg, TransactionResult
    from bezant.net.client.wallet import Wallet
    from bezant.protocol.codes import ResultCode
    from bezant.protocol.errors import (
        AccessDenied,
        ArchiveUnavailable,
        BezantError,
        ConnectionFailed,
        CorruptLog,
        DataFolderInUse,
        HistoryIncomplete,
        InvalidAmountOrName,
        LedgerError,
        LocalProtocolError,
        ProtocolError,
        ReceiptInvalid,
        RemoteProtocolError,
        RequestRefused,
        RequestTimedOut,
        StorageError,
        UnsupportedFormat,
        UsageError,
    )
    from bezant.protocol.messages import Currency
    from bezant.protocol.receipts import Receipt, check_receipt
    from bezant.protocol.transactions import TransactionMode

__all__ = [
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

_HOMES = {
    "bezant.net.client.blocking": ("BlockingSubscription", "BlockingWallet"),
    "bezant.net.client.channel": ("OutcomeUnknown",),
    "bezant.net.client.opening": ("connect", "connect_blocking", "open"),
    "bezant.net.client.prepared": ("Command",),
    "bezant.net.client.results": ("UNLIMITED", "Account", "Event", "Outcome", "Result"),
    "bezant.net.client.subscription": ("Subscription",),
    "bezant.net.client.transactions": ("TransactionLeg", "TransactionResult"),
    "bezant.net.client.wallet": ("Wallet",),
    "bezant.protocol.codes": ("ResultCode",),
    "bezant.protocol.messages": ("Currency",),
    "bezant.protocol.receipts": ("Receipt", "check_receipt"),
    "bezant.protocol.transactions": ("TransactionMode",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF.get(name, "bezant.protocol.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
