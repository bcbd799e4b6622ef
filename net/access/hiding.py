"""What is left out of what a token that is limited to accounts is told: how the account at the other end stands.

Such a token may pay anybody, and each result, and each event, has the balances of both accounts: a payment that is
refused would tell what somebody else has. Those of the credit account are always left out, also if the token may know
of that account: it can ask for it.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import EVENT, EVENT_ANSWER, EVENT_QUERY, EVENT_SIZE, Records

Mask = npt.NDArray[np.bool_]

_OF_DEBIT: Final = ("debit_balance", "debit_held", "debit_previous")
_OF_CREDIT: Final = ("credit_balance", "credit_held", "credit_previous")
_EVENT_BYTES: Final = np.dtype(f"V{EVENT_SIZE}")


def hide_in_results(results: Records, commands: Records) -> None:
    """Leave it out of RESULT records, in place.

    The result of a FORBID is that of whatever command has used the id, which may be about another debit account.
    """
    results["credit_balance"] = results["credit_held"] = 0
    forbids = commands["kind"] == int(CommandKind.FORBID)
    results["debit_balance"][forbids] = results["debit_held"][forbids] = 0


def hide_in_events(body: bytes, answer: bytes) -> bytes:
    """The answer to LOOKUP_EVENTS without it. An event of another debit account than was asked about is not told of."""
    queries, answers = np.frombuffer(body, EVENT_QUERY), np.frombuffer(answer, EVENT_ANSWER).copy()
    events = np.frombuffer(answers["event"].tobytes(), EVENT).copy()
    for name in _OF_CREDIT:
        events[name] = 0
    answers["event"] = events.view(_EVENT_BYTES)
    others = (events["debit_head"] != queries["debit_head"]) | (events["debit_tail"] != queries["debit_tail"])
    answers[others] = np.zeros(1, EVENT_ANSWER)[0]
    return answers.tobytes()


def hide_in_history(pushed: Records, is_debit_own: Mask, is_credit_own: Mask) -> Records:
    """Those PUSHED_EVENT records that are about an account of the token's own, without how another one stands."""
    kept = is_debit_own | is_credit_own
    told = pushed[kept]
    events = np.frombuffer(told["event"].tobytes(), EVENT).copy()
    for names, is_own in ((_OF_DEBIT, is_debit_own[kept]), (_OF_CREDIT, is_credit_own[kept])):
        for name in names:
            events[name][~is_own] = 0
    told["event"] = events.view(_EVENT_BYTES)
    return told
