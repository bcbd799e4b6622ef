"""Legs for accounts whose slot is not here: it has moved away, is about to, or has not come yet. They are told
WRONG_SHARD, so that their coordinators follow. A source that is sealed sends them here before all has come: an account
that is not here yet must not be told to be unknown, which would use up the id, nor one be credited that is coming.

Not those of a try that was begun here, whatever they ask: that is ended where it was begun, or has ended there. Nor a
CANCEL with SETTLED, of a try that is for this shard and no other: it forbids what may come late, when the slot is back.

That is looked at twice: when legs come from other shards, and as they are executed, which is when a slot may have been
sealed that was here when they came. The second time halves that this shard asks of itself are among them.
"""

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from bezant.engine.ledger.ledger import Ledger
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.records import COMMAND, RESULT, Records, Words

if TYPE_CHECKING:
    from bezant.net.server.legs import Respond
    from bezant.net.server.placing import Placing

_TRY_CREDIT: Final = int(CommandKind.TRY_CREDIT)
_TRY_DEBIT: Final = int(CommandKind.TRY_DEBIT)
_TRY_PART: Final = int(CommandKind.TRY_PART)
_PLAN: Final = int(CommandKind.PLAN)
_CONFIRM: Final = int(CommandKind.CONFIRM)
_CANCEL: Final = int(CommandKind.CANCEL)
_NONE: Final = np.zeros(0, np.int64)


def preset_of_moved(placing: "Placing", ledger: Ledger, commands: Records) -> Words:
    """The codes that refuse legs about to be executed whose accounts are not here; empty if that is none of them."""
    moves = ledger.moves
    if not moves.version:
        return _NONE  # No slot has ever moved.
    is_sealed = moves.outgoing is not None and moves.outgoing.phase == "sealed"
    elsewhere = _find_elsewhere(placing, ledger, commands, with_ends=is_sealed)
    return np.where(elsewhere, int(ResultCode.WRONG_SHARD), 0) if elsewhere.any() else _NONE


def without_legs_elsewhere(
    placing: "Placing", ledger: Ledger, commands: Records, respond: "Respond"
) -> "tuple[Records, Respond]":
    """The legs that this shard executes, and who gets their results: together with those of the others."""
    if not placing.may_refuse_any(commands):
        return commands, respond
    elsewhere = _find_elsewhere(placing, ledger, commands, with_ends=True)
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


def _find_elsewhere(placing: "Placing", ledger: Ledger, commands: Records, *, with_ends: bool) -> npt.NDArray[np.bool_]:
    """Which legs another shard is to execute, as far as this one has not begun what they belong to."""
    kinds, flags = commands["kind"], commands["flags"]
    is_of_debit = (kinds == _TRY_PART) | (kinds == _TRY_DEBIT) | (kinds == _PLAN)
    is_try = is_of_debit | (kinds == _TRY_CREDIT)
    is_confirm = (kinds == _CONFIRM) & with_ends
    is_end = is_confirm | ((kinds == _CANCEL) & (flags & int(CommandFlag.SETTLED) == 0) & with_ends)
    pays = is_of_debit | (is_end & (flags & int(CommandFlag.PART) != 0))
    wallets = np.where(pays, commands["debit_head"], commands["credit_head"])
    # What is confirmed stands in some shard: where the slot was then, which may not be where it is now.
    elsewhere = (is_try & placing.refuses_new(wallets)) | (is_end & placing.is_elsewhere(wallets))
    elsewhere |= is_confirm & placing.has_moved(wallets)
    # What an end ends has its id among those of legs, or is the TRY_DEBIT of a client, on which this shard decides.
    for kind in (_TRY_CREDIT, _TRY_DEBIT):
        rows = np.flatnonzero(elsewhere)
        if len(rows):
            keys = np.zeros(len(rows), COMMAND)
            for word in ("head", "tail"):
                tried = np.where(is_try, commands[f"id_{word}"], commands[f"reference_{word}"])
                keys[f"id_{word}"], keys[f"debit_{word}"] = tried[rows], commands[f"debit_{word}"][rows]
            keys["kind"] = np.where(is_try, kinds, kind)[rows]
            sequences, _ = ledger.find_events(keys)
            elsewhere[rows[sequences > 0]] = False
    return np.asarray(elsewhere, np.bool_)
