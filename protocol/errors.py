"""Exceptions, by whose fault it was. Refusals of a command are result codes (`codes.py`), not exceptions.

BezantError
├── UsageError                the caller's fault: fix the call
│   └── InvalidAmountOrName   an amount, name or currency that cannot be written in a record
├── ProtocolError             the two ends disagree about the protocol
│   ├── LocalProtocolError    we were about to break it
│   └── RemoteProtocolError   the other end broke it
├── ConnectionFailed          the network or the node is gone: try again or elsewhere
│   └── RequestTimedOut       no answer came in time; for look-ups, where nothing is at stake
├── RequestRefused            the node answered a request with an error message
│   └── AccessDenied          it does not let us in, or our token may not ask this
├── ReceiptInvalid            a receipt does not prove what it should
├── StorageError              the data folder or the disk
│   ├── DataFolderInUse       another process holds it
│   ├── UnsupportedFormat     written by another version
│   ├── CorruptLog            bytes that were durable have changed, or history does not verify
│   ├── HistoryIncomplete     a part of the history has not come from the group yet
│   └── ArchiveUnavailable    a part of the history is in an archive, and cannot be had from there now
└── LedgerError               the engine's own fault: a bug; it stops rather than go on
"""

# ruff: noqa: N818 - these names say what happened; "Error" at their ends would add nothing.


class BezantError(Exception):
    """Root of everything that Bezant raises on purpose."""


class UsageError(BezantError):
    """The caller asked for something that cannot be asked; the message says what can."""


class InvalidAmountOrName(UsageError, ValueError):
    """An amount, name or currency that cannot be written in a record."""


class ProtocolError(BezantError):
    """The two ends disagree about the protocol."""


class LocalProtocolError(ProtocolError):
    """We were about to send something that the protocol forbids."""


class RemoteProtocolError(ProtocolError):
    """The other end sent something that the protocol forbids."""


class ConnectionFailed(BezantError):
    """The network or the node is gone."""


class RequestTimedOut(ConnectionFailed):
    """No answer came within the deadline of a request that changes nothing."""


class RequestRefused(BezantError):
    """The node answered with an error message instead of a reply.

    ``code`` is the number of the `FrameError` that it sent.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class AccessDenied(RequestRefused):
    """The node does not know our token, or the token may not ask what was asked; nothing was executed."""


class ReceiptInvalid(BezantError):
    """A receipt does not prove that its event is in the history of its log; the message says why not."""


class StorageError(BezantError):
    """The data folder or the disk under it does not let us go on."""


class DataFolderInUse(StorageError):
    """Another process holds the data folder."""


class UnsupportedFormat(StorageError):
    """The data folder was written by another version of Bezant, whose format or rules are not known here."""


class CorruptLog(StorageError):
    """Bytes of the log that were durable have changed, or the history does not verify."""


class HistoryIncomplete(StorageError):
    """A part of the history is not here yet: this node began with the state of its group, and fills the rest in.

    What is asked for has come when the log begins with the entry `first_index`, or with one before it.
    """

    def __init__(self, message: str, first_index: int = 1) -> None:
        super().__init__(message)
        self.first_index = first_index


class ArchiveUnavailable(StorageError):
    """A part of the history is in an archive, and cannot be had from there: not at all, or not yet."""


class LedgerError(BezantError):
    """An invariant of the engine does not hold: a bug in Bezant. It stops rather than go on."""
