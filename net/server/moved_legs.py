"""Legs for accounts whose slot is not here: it has moved away, is about to, or has not come yet. They are told
WRONG_SHARD, so that their coordinators follow. A source that is sealed sends them here before all has come: an account
that is not here yet must not be told to be unknown, which would use up the id, nor one be credited that is coming.

Not those of a try that was begun here, whatever they ask: that is ended where it was begun, or has ended there.
"""

import numpy as np
import numpy.typing as npt

from bezant.engine.ledger.ledger import Ledger
from bezant.net.server.legs import Respond
from bezant.net.server.placing import Placing
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.records import COMMAND, RESULT, Records

_TRY_CREDIT = int(CommandKind.TRY_CREDIT)
_TRY_PART = int(CommandKind.TRY_PART)
_ENDS = [int(CommandKind.CONFIRM), int(CommandKind.CANCEL)]


def without_legs_elsewhere(
    placing: Placing, ledger: Ledger, commands: Records, respond: Respond
) -> tuple[Records, Respond]:
    """The legs that this shard executes, and who gets their results: together with those of the others."""
    elsewhere = _find_elsewhere(placing, ledger, commands)
    if not elsewhere.any():
        return commands, respond
    here = ~elsewhere

    def respond_to_all(answer: Records | Exception) -> None:
        if isinstance(answer, Exception):
            respond(answer)
            return
        results = np.zeros(len(commands), RESULT)
        results["code"] = int(ResultCode.WRONG_SHARD)
        results[here] = answer
        respond(results)

    return commands[here], respond_to_all


def _find_elsewhere(placing: Placing, ledger: Ledger, commands: Records) -> npt.NDArray[np.bool_]:
    """Which legs another shard is to execute, as far as this one has not begun what they belong to."""
    is_try = np.isin(commands["kind"], (_TRY_CREDIT, _TRY_PART))
    is_end = np.isin(commands["kind"], _ENDS)
    pays = (commands["kind"] == _TRY_PART) | (is_end & (commands["flags"] & int(CommandFlag.PART) != 0))
    wallets = np.where(pays, commands["debit_head"], commands["credit_head"])
    elsewhere = (is_try & placing.refuses_new(wallets)) | (is_end & placing.is_elsewhere(wallets))
    rows = np.flatnonzero(elsewhere)
    if len(rows):
        keys = np.zeros(len(rows), COMMAND)
        for word in ("head", "tail"):
            tried = np.where(is_try, commands[f"id_{word}"], commands[f"reference_{word}"])
            keys[f"id_{word}"], keys[f"debit_{word}"] = tried[rows], commands[f"debit_{word}"][rows]
        keys["kind"] = _TRY_CREDIT
        sequences, _ = ledger.find_events(keys)
        elsewhere[rows[sequences > 0]] = False
    return np.asarray(elsewhere, np.bool_)
