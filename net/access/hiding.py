"""What is left out of what a token that is limited to accounts is told: how the account at the other end stands.

Such a token may pay anybody, and each result, and each event, has the balances of both accounts: a payment that is
refused would tell what somebody else has. Those of the credit account are always left out, also if the token may know
of that account: it can ask for it.
"""

from typing import Final

import numpy as np

from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import EVENT, EVENT_ANSWER, EVENT_QUERY, EVENT_SIZE, Records

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
    events["credit_balance"] = events["credit_held"] = events["credit_previous"] = 0
    answers["event"] = events.view(_EVENT_BYTES)
    others = (events["debit_head"] != queries["debit_head"]) | (events["debit_tail"] != queries["debit_tail"])
    answers[others] = np.zeros(1, EVENT_ANSWER)[0]
    return answers.tobytes()
