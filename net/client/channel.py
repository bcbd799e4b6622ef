"""What a wallet needs from whatever carries its requests: a node across TCP, or an engine in the same process."""

from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import ConnectionFailed, UsageError
from bezant.protocol.frames import Operation
from bezant.protocol.messages import Welcome
from bezant.protocol.records import RESULT, Records

CODE_UNKNOWN: Final = -1
"""Stands in the ``code`` of a RESULT row whose outcome is not known. Never on the wire: the client alone writes it."""

if CODE_UNKNOWN in {int(code) for code in ResultCode}:
    raise AssertionError("the code for an unknown outcome must not be a code of the protocol")


def unknown_results(count: int) -> Records:
    """Make RESULT rows that say of `count` commands that their outcome is not known."""
    results = np.zeros(count, RESULT)
    results["code"] = CODE_UNKNOWN
    return results


TIMEOUT_S_MAX: Final = 1_000_000
"""Eleven days; the deadline travels as 32 bits of milliseconds."""


def check_timeout(timeout_s: float) -> float:
    """Return a timeout in seconds, or raise `UsageError` if it is none."""
    if not 0 < timeout_s <= TIMEOUT_S_MAX:
        raise UsageError(f"a timeout is above 0 and up to {TIMEOUT_S_MAX} seconds, not {timeout_s!r}")
    return timeout_s


class OutcomeUnknown(ConnectionFailed):
    """No answer came for some commands: each may have been executed or not.

    ``commands`` are those that were asked and ``results`` one RESULT row for each, with the code CODE_UNKNOWN where
    no answer came. Submitting the commands of `unknown` again, ids unchanged, settles them: one that was executed is
    answered with its first outcome.
    """

    def __init__(self, message: str, commands: Records, results: Records) -> None:
        super().__init__(message)
        self.commands = commands
        self.results = results

    @property
    def unknown(self) -> npt.NDArray[np.bool_]:
        """For each command, whether its outcome is unknown."""
        return np.asarray(self.results["code"] == CODE_UNKNOWN, dtype=np.bool_)


_BEFORE_IDS: Final = np.array(
    [
        ResultCode.DEADLINE_PASSED,
        ResultCode.OVERLOADED,
        ResultCode.NOT_LEADER,
        ResultCode.WRONG_SHARD,
        ResultCode.STORAGE_FULL,
        ResultCode.FORBIDDEN,
    ],
    dtype=np.int16,
)


DETAIL_UNSURE: Final = -1
"""Stands in the ``detail`` of a row with WRONG_SHARD if an earlier sending of the command may have been executed, where
the slot was then. Never on the wire, nor told to callers: who follows the slot map asks the shard that has it now."""


def certain_results(commands: Records, results: Records, *, follows_map: bool = False) -> Records:
    """Return results of commands that had been sent before, or raise `OutcomeUnknown` where the answer does not tell.

    It does not where the node refused before it looked at ids. To who `follows_map` another shard can tell: such rows
    keep WRONG_SHARD, and have DETAIL_UNSURE.
    """
    unsure = np.isin(results["code"], _BEFORE_IDS)
    if not unsure.any():
        return results
    known = results.copy()
    if follows_map:
        elsewhere = results["code"] == int(ResultCode.WRONG_SHARD)
        known["detail"][elsewhere] = DETAIL_UNSURE
        unsure &= ~elsewhere
        if not unsure.any():
            return known
    known[unsure] = unknown_results(1)[0]
    known["code"][unsure] = CODE_UNKNOWN
    raise OutcomeUnknown(
        f"{int(unsure.sum())} of {len(commands)} commands were sent, got no answer, and sent again they "
        "reached the node too late to say what became of the first",
        commands,
        known,
    )


class Answerer(Protocol):
    """Answers questions, whoever they go to."""

    async def request(self, operation: Operation, body: bytes, timeout_s: float | None) -> bytes:
        """See `Channel.request`."""
        ...


class Channel(Protocol):
    """Carries requests to one ledger. Used from one event loop; calls may overlap and are started in order."""

    @property
    def welcome(self) -> Welcome:
        """Who answers, and what it takes."""
        ...

    async def submit(self, commands: Records, timeout_s: float | None) -> Records:
        """Execute up to BATCH_COUNT_MAX commands and return their RESULT rows, one each in the same order.

        `commands` must not change until this returns. A `timeout_s` of None is the channel's own default, never
        without end. Raises `OutcomeUnknown` if any outcome is unknown, `RequestRefused` if the frame was refused as
        a whole and nothing of it was executed.
        """
        ...

    async def request(self, operation: Operation, body: bytes, timeout_s: float | None) -> bytes:
        """Ask anything but commands and return the body of the reply.

        Raises `RequestTimedOut` when the deadline passes, `ConnectionFailed` when the channel closes meanwhile,
        `RequestRefused` when the answer is an error message.
        """
        ...

    async def close(self) -> None:
        """Let go of the ledger; what is still unanswered ends unknown. May be called again."""
        ...
