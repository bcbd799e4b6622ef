"""What the command line says when something fails: one line that says whose fault it was, and the next step.

The classes are those of `bezant.protocol.errors`, most particular first; the first row that fits an error describes
it. An error may bring its own next step in ``next_step`` (`CommandFailed` does).
"""

# ruff: noqa: N818 - as in `bezant.protocol.errors`, these names say what happened.

import errno
from typing import Final, NamedTuple

from bezant.protocol.errors import (
    AccessDenied,
    BezantError,
    ConnectionFailed,
    CorruptLog,
    DataFolderInUse,
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

STATUS_FAILED: Final = 1
STATUS_USAGE: Final = 2
STATUS_INTERRUPTED: Final = 130


class CommandFailed(BezantError):
    """A command could not do its work; the message says why, in words that need nothing added.

    ``next_step`` says what to do about it.
    """

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.next_step = next_step


class InputWrong(CommandFailed):
    """What was typed names something that is not there, or cannot be asked."""


class CommandRefused(CommandFailed):
    """The ledger refused the command, because of the state that it is in."""


class LedgerInUse(CommandFailed):
    """A process has the data folder that a command was to work on, and can be asked instead."""


class OutcomeNotKnown(CommandFailed):
    """The node may or may not have done it: no answer came. The next step settles it."""


class InputFileError(UsageError):
    """A file that was given cannot be read or used; the message begins with the file and the line."""


class _Row(NamedTuple):
    """How one class of errors is told."""

    kind: type[BezantError]
    fault: str
    next_step: str
    status: int = STATUS_FAILED


_BUG: Final = "this is a bug in Bezant: keep the data folder as it is and report it"

_ROWS: Final[tuple[_Row, ...]] = (
    _Row(OutcomeNotKnown, "outcome not known", ""),
    _Row(LedgerInUse, "the data folder", ""),
    _Row(InputWrong, "your input", ""),
    _Row(CommandRefused, "refused", ""),
    _Row(CommandFailed, "failed", ""),
    _Row(InputFileError, "the file", "correct it and run the command again"),
    _Row(InvalidAmountOrName, "your input", "correct it and run the command again"),
    _Row(UsageError, "the command line", "see --help", STATUS_USAGE),
    _Row(LocalProtocolError, "the client", _BUG),
    _Row(RemoteProtocolError, "the other end", "check that a Bezant node of this version answers at that address"),
    _Row(ProtocolError, "the protocol", "check that both ends are Bezant of the same version"),
    _Row(RequestTimedOut, "no answer", "nothing was changed; check the node and try again"),
    _Row(ConnectionFailed, "no connection", "check the address, or start a node: bezant serve --data DIR"),
    _Row(AccessDenied, "no access", "nothing was changed; show a token with the scope for it: --token-file FILE"),
    _Row(RequestRefused, "the node refused", "nothing was changed; correct the request"),
    _Row(ReceiptInvalid, "the receipt", "do not rely on it; ask for another, from a node that you trust"),
    _Row(DataFolderInUse, "the data folder", "stop that process, then run the command again"),
    _Row(UnsupportedFormat, "the data folder", "use the version of Bezant that wrote it, or a newer one"),
    _Row(CorruptLog, "the data folder", "keep it as it is, start nothing on it, and restore a copy that verifies"),
    _Row(StorageError, "the disk", "see to the folder and its disk, then run the command again"),
    _Row(LedgerError, "the engine", _BUG),
    _Row(BezantError, "failed", ""),
)


_DISK_SAYS_NO: Final = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.EISDIR,
        errno.ELOOP,
        errno.EMFILE,
        errno.ENAMETOOLONG,
        errno.ENFILE,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)
"""What the operating system answers because of a disk, a path or a right, and not because of a bug."""


def disk_error(error: OSError) -> StorageError | None:
    """The same as an error of ours, or None if nobody at this computer can do anything about it."""
    if error.errno not in _DISK_SAYS_NO:
        return None
    where = f"{error.filename}: " if error.filename else ""
    return StorageError(f"{where}{error.strerror}")


def describe(error: BezantError) -> str:
    """One line: whose fault, what happened, and the next step."""
    row = _row_of(error)
    told = " ".join(str(error).split()) or type(error).__name__
    next_step = getattr(error, "next_step", "") or row.next_step
    if isinstance(error, RequestRefused) and _is_for_now(error):
        next_step = "nothing was changed; try again in a moment"
    line = f"{row.fault}: {told}"
    return f"{line.rstrip('.')}; {next_step}" if next_step else line


def _is_for_now(refusal: RequestRefused) -> bool:
    """Whether a refusal has nothing to do with what was asked."""
    from bezant.protocol.frames import FrameError  # whoever was refused by a node has loaded it

    return refusal.code in {FrameError.OVERLOADED, FrameError.BEHIND, FrameError.NOT_LEADER}


def exit_status(error: BezantError) -> int:
    """The exit status that an error ends the command with."""
    return _row_of(error).status


def _row_of(error: BezantError) -> _Row:
    return next(row for row in _ROWS if isinstance(error, row.kind))
