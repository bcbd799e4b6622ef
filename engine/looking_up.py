"""Look-ups of events by the ids of their commands, as clients ask and are answered."""

import numpy as np
import numpy.typing as npt

from bezant.engine.ledger.ledger import Ledger
from bezant.engine.moves.copies import positions_of, unmarked
from bezant.protocol.records import COMMAND, EVENT_ANSWER, Records


def find_answers(ledger: Ledger, shard: int, keys: npt.NDArray[np.int64]) -> Records:
    """EVENT_ANSWER records for keys (int64 of shape (count, 4): command id, debit account id)."""
    commands = np.zeros(len(keys), COMMAND)
    commands["id_head"], commands["id_tail"] = keys[:, 0], keys[:, 1]
    commands["debit_head"], commands["debit_tail"] = keys[:, 2], keys[:, 3]
    sequences, events = ledger.find_events(commands)
    answers = np.zeros(len(keys), EVENT_ANSWER)
    positions, events = positions_of(shard, sequences, events), unmarked(events)
    for number in np.flatnonzero(sequences).tolist():
        answers[number]["position"] = positions[number]
        answers[number]["found"] = 1
        answers[number]["event"] = events[number].tobytes()
    return answers
