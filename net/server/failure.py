"""How a node ends when it must not go on: at once and loudly, rather than half alive.

What is acknowledged is on the disk, so ending the process loses nothing that was promised; going on could tell results
that are wrong, or leave requests without an answer for ever.
"""

import logging
import os
from collections.abc import Callable
from typing import Final, NoReturn, ParamSpec

EXIT_STATUS_BUG: Final = 70
"""EX_SOFTWARE of sysexits.h: an invariant of the engine does not hold, or its code raised what nobody expects."""
EXIT_STATUS_SYNC_FAILED: Final = 74
"""EX_IOERR of sysexits.h: a write or sync of the log failed."""

_log = logging.getLogger("bezant")
_Parameters = ParamSpec("_Parameters")


def end_after_failed_sync(error: OSError) -> NoReturn:
    """End the process because the log could not be written."""
    _log.critical(
        "bezant: writing the log failed: %s. The process ends now, so that nothing is acknowledged that may not be on "
        "the disk. Check the disk, then start the node again",
        error,
    )
    os._exit(EXIT_STATUS_SYNC_FAILED)


def end_after_bug(error: BaseException) -> NoReturn:
    """End the process because the engine can no longer be believed."""
    _log.critical(
        "bezant: the engine failed: %s: %s. The process ends now rather than go on with a state that may be wrong. "
        "Keep the data folder as it is, run `bezant verify` on it, and report this with the lines below",
        type(error).__name__,
        error,
        exc_info=error,
    )
    os._exit(EXIT_STATUS_BUG)


def or_end(step: Callable[_Parameters, None]) -> Callable[_Parameters, None]:
    """Have the process end when a step of the pipeline raises."""

    def run(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> None:
        try:
            step(*args, **kwargs)
        except OSError as error:
            end_after_failed_sync(error)  # of the vote, or of a cut of the log
        except Exception as error:
            end_after_bug(error)

    return run
