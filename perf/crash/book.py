"""What was sent to a node and what it answered: a row for every id, in the order of first sending.

An answer is held against what is known of its id, at once: the first outcome stays for ever. A row whose answer never
came is settled after the crash by what the node then has, which is either all of it or nothing.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bezant.perf.crash.faults import FaultKind, Faults, RigFailed
from bezant.perf.crash.plan import Frame, Role
from bezant.protocol.codes import CODE_ROW, ResultCode
from bezant.protocol.kinds import CommandField, CommandFlag, ResultFlag
from bezant.protocol.records import COMMAND, COMMAND_SIZE, EVENT, RESULT, Records, Words

_CAPACITY_INITIAL: Final = 1 << 14
_ID_SIZE: Final = 16
_NO_ROW: Final = -1
_OUTCOME_FIELDS: Final = tuple(name for name in RESULT.names or () if name not in ("flags", "detail"))
_SHARED_FIELDS: Final = tuple(
    name for name in RESULT.names or () if name not in ("code", "flags", "detail", "position")
)
"""Fields that a result and an event have by the same name."""
_WITHOUT_EVENT: Final = [code for code, row in CODE_ROW.items() if not row.leaves_event]

Flags = npt.NDArray[np.bool_]


class Sent(NamedTuple):
    """A frame that was sent, with the row of each of its commands; malformed ones have none."""

    frame: Frame
    rows: Words

    @property
    def own_rows(self) -> Words:
        """Rows of the commands with the one content of their ids."""
        rows: Words = self.rows[_roles(self.frame) == Role.OWN]
        return rows


class Book:
    """See the module. ``commands``, ``results`` and ``known`` are arrays by row; faults go to the list given.

    ``acknowledged`` counts the rows whose first outcome came as an answer.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._row_of: dict[bytes, int] = {}
        self._commands = np.zeros(_CAPACITY_INITIAL, COMMAND)
        self._results = np.zeros(_CAPACITY_INITIAL, RESULT)
        self._known = np.zeros(_CAPACITY_INITIAL, np.bool_)
        self._times_sent = np.zeros(_CAPACITY_INITIAL, np.int64)
        self.acknowledged = 0

    def __len__(self) -> int:
        return len(self._row_of)

    @property
    def commands(self) -> Records:
        """The command of each row."""
        return self._commands[: len(self)]

    @property
    def results(self) -> Records:
        """The first outcome of each row that is known; flags and detail are zero."""
        return self._results[: len(self)]

    @property
    def known(self) -> Flags:
        """Whether the outcome of each row is known."""
        return self._known[: len(self)]

    # ---- sending ----

    def send(self, frame: Frame) -> Sent:
        """Take notice of a frame that is being sent."""
        ids = frame.body
        rows = np.full(frame.count, _NO_ROW, np.int64)
        fresh: list[int] = []
        for number, role in enumerate(frame.roles):
            if role == Role.MALFORMED:
                continue
            identifier = ids[number * COMMAND_SIZE : number * COMMAND_SIZE + _ID_SIZE]
            row = self._row_of.get(identifier)
            if row is None:
                row = self._row_of[identifier] = len(self._row_of)
                fresh.append(number)
            rows[number] = row
        self._reserve()
        commands = np.frombuffer(frame.body, COMMAND)
        self._commands[rows[fresh]] = commands[fresh]
        sent = Sent(frame, rows)
        self._times_sent[sent.own_rows] += 1
        return sent

    def _reserve(self) -> None:
        while len(self) > len(self._commands):
            self._commands = np.concatenate([self._commands, np.zeros_like(self._commands)])
            self._results = np.concatenate([self._results, np.zeros_like(self._results)])
            self._known = np.concatenate([self._known, np.zeros_like(self._known)])
            self._times_sent = np.concatenate([self._times_sent, np.zeros_like(self._times_sent)])

    def was_sent_once(self, rows: Words) -> Flags:
        """Whether each row went out in one frame only."""
        once: Flags = self._times_sent[rows] == 1
        return once

    # ---- answers ----

    def acknowledge(self, sent: Sent, results: Records) -> None:
        """Take an answer, and hold it against what is known. Raises `RigFailed` if the node was not able to execute."""
        if len(results) != sent.frame.count:
            raise RigFailed(f"{sent.frame.count} commands got {len(results)} results")
        roles = _roles(sent.frame)
        own = roles == Role.OWN
        self._check_conflicts(sent.rows[roles == Role.CONFLICT], results[roles == Role.CONFLICT])
        self._check_malformed(results[roles == Role.MALFORMED])
        self._acknowledge_own(sent.rows[own], results[own])

    def _acknowledge_own(self, rows: Words, results: Records) -> None:
        rows, results = self._without_refused(rows, results)
        repeated = (results["flags"] & ResultFlag.REPEATED) != 0
        known = self._known[rows]
        self._check_known(rows[known], results[known], repeated[known])
        new = rows[~known]
        wrong = np.flatnonzero(repeated[~known] & self.was_sent_once(new))
        if len(wrong):
            text = f"{self._describe(new[wrong[0]])}: answered as a repeat, and it was sent once"
            self._faults.add(FaultKind.REPEATED, text, len(wrong))
        self._learn(new, results[~known])
        self.acknowledged += len(new)

    def _without_refused(self, rows: Words, results: Records) -> tuple[Words, Records]:
        """Those that left an event: an id's own content is never malformed or in conflict with itself."""
        codes = results["code"]
        for code in np.unique(codes[(codes >= ResultCode.DEADLINE_PASSED) & (codes < ResultCode.ID_CONFLICT)]):
            raise RigFailed(f"the node answers {ResultCode(code).name}: {CODE_ROW[int(code)].meaning}")
        refused = np.isin(codes, _WITHOUT_EVENT)
        if np.any(refused):
            place = np.flatnonzero(refused)[0]
            text = f"{self._describe(rows[place])}: now answered {results[place]}"
            self._faults.add(FaultKind.CHANGED, text, int(np.count_nonzero(refused)))
        return rows[~refused], results[~refused]

    def _learn(self, rows: Words, results: Records) -> None:
        for name in _OUTCOME_FIELDS:
            self._results[name][rows] = results[name]
        self._known[rows] = True

    def _check_known(self, rows: Words, results: Records, repeated: Flags) -> None:
        """Rows with an outcome: it must come again, marked as a repeat."""
        anew = np.flatnonzero(~repeated)
        if len(anew):
            text = f"{self._describe(rows[anew[0]])}: executed again at position {results['position'][anew[0]]}"
            self._faults.add(FaultKind.REPEATED, text, len(anew))
        same = np.ones(len(rows), np.bool_)
        for name in _OUTCOME_FIELDS:
            same &= results[name] == self._results[name][rows]
        changed = np.flatnonzero(~same & repeated)
        if len(changed):
            place = changed[0]
            text = f"{self._describe(rows[place])}: now answered {results[place]}"
            self._faults.add(FaultKind.CHANGED, text, len(changed))

    def _check_conflicts(self, rows: Words, results: Records) -> None:
        """Ids with a known outcome and another amount: refused, and pointed to the first."""
        right = (
            (results["code"] == ResultCode.ID_CONFLICT)
            & (results["detail"] == CommandField.AMOUNT)
            & (results["position"] == self._results["position"][rows])
        )
        wrong = np.flatnonzero(~right)
        if len(wrong):
            text = f"{self._describe(rows[wrong[0]])}: other content was answered {results[wrong[0]]}"
            self._faults.add(FaultKind.CHANGED, text, len(wrong))

    def _check_malformed(self, results: Records) -> None:
        wrong = np.flatnonzero((results["code"] != ResultCode.AMOUNT_NOT_POSITIVE) | (results["position"] != 0))
        if len(wrong):
            text = f"a malformed command was answered {results[wrong[0]]}"
            self._faults.add(FaultKind.CHANGED, text, len(wrong))

    # ---- after a crash ----

    def settle(self, rows: Words, answers: Records) -> int:
        """Take what a node says of these rows in a look-up; returns how many without an answer have an event."""
        found = answers["found"] == 1
        events = np.frombuffer(answers["event"].tobytes(), EVENT)
        known = self._known[rows]
        missing = np.flatnonzero(known & ~found)
        if len(missing):
            text = f"{self._describe(rows[missing[0]])}: acknowledged, and not there"
            self._faults.add(FaultKind.MISSING, text, len(missing))
        self._check_events(rows[found], answers["position"][found], events[found])
        new = found & ~known
        results = np.zeros(int(np.count_nonzero(new)), RESULT)
        results["code"], results["position"] = events["result"][new], answers["position"][new]
        for name in _SHARED_FIELDS:
            results[name] = events[name][new]
        self._learn(rows[new], results)
        return len(results)

    def _check_events(self, rows: Words, positions: Words, events: Records) -> None:
        """Events hold the command as it was sent, and for known rows the outcome as it was told."""
        same = np.ones(len(rows), np.bool_)
        for name in COMMAND.names or ():
            if name != "reserved":
                same &= events[name] == self._commands[name][rows]
        known = self._known[rows]
        outcome = (positions == self._results["position"][rows]) & (events["result"] == self._results["code"][rows])
        for name in _SHARED_FIELDS:
            outcome &= events[name] == self._results[name][rows]
        changed = np.flatnonzero(~(same & (outcome | ~known)))
        if len(changed):
            text = f"{self._describe(rows[changed[0]])}: its event at {positions[changed[0]]} is {events[changed[0]]}"
            self._faults.add(FaultKind.CHANGED, text, len(changed))

    def forget_sending(self) -> None:
        """Count anew how often rows are sent that are not there: what was sent of them left nothing behind."""
        self._times_sent[: len(self)][~self.known] = 0

    def unit_of(self, row: int) -> slice:
        """The rows of the chain that a row is in, or of itself alone."""
        linked = self._commands["flags"] & CommandFlag.LINKED
        first, last = row, row
        while first > 0 and linked[first - 1]:
            first -= 1
        while linked[last]:
            last += 1
        return slice(first, last + 1)

    def known_in_order(self, sequence: int) -> Words:
        """Known rows with a position above `sequence`, in the order of their positions."""
        rows = np.flatnonzero(self.known & (self.results["position"] > sequence))
        return rows[np.argsort(self.results["position"][rows], kind="stable")]

    def _describe(self, row: int) -> str:
        command, result = self._commands[row], self._results[row]
        told = f"answered {ResultCode(int(result['code'])).name} at position {result['position']}"
        return f"kind {command['kind']}, row {row}, {told if self._known[row] else 'not answered'}"


def _roles(frame: Frame) -> npt.NDArray[np.uint8]:
    return np.frombuffer(frame.roles, np.uint8)
