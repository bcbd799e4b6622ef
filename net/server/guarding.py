"""What clients may have executed: commands and requests are looked at once more when they are about to be.

At the connection an operation is refused that its token may not ask for (`operation_refusal`). Here, in the batch, the
commands are looked at that some token may not send, what names accounts that a token is not limited to, and whether a
token still counts. A batch in which every token may send all commands costs one look at each connection in it; without
tokens it costs nothing.

What an administrator asks for leaves an act in the log (`engine/tokens/acts.py`) before it is tried. What cannot be
written down now is not done: for want of room it is refused like all that finds none, else to be asked again.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from bezant.engine.member import Member
from bezant.engine.raft.interface import NotYet
from bezant.engine.tokens.acts import write_act
from bezant.net.access.guard import Guard
from bezant.net.access.hiding import hide_in_events
from bezant.net.server.acts import tell_request
from bezant.net.server.batch import Batch, Request
from bezant.net.server.requests import AnsweredElsewhere, Forbidden
from bezant.protocol.access import COMMAND_SCOPES, OPERATION_RULES, Principal, Scope, command_refusal
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import CorruptLog, InvalidAmountOrName, RemoteProtocolError, StorageError, UsageError
from bezant.protocol.frames import Operation
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.messages import decode_message
from bezant.protocol.metadata import SetMetadata
from bezant.protocol.names import account_id, currency_code
from bezant.protocol.records import EVENT_QUERY, Records, Words, id_bytes

KIND_COUNT: Final = 64
"""Numbers of kinds that a table has a place for; all beyond are nobody's."""
IDS_TOLD_MAX: Final = 8
"""Commands of a batch that an act names by their ids; it says how many there are."""
REPEATED_S: Final = 60.0
"""Seconds for which a request that cannot be done yet, and is asked again and again, is one act."""
_ID_SIZE: Final = 16
_NO_CODES: Final = np.zeros(0, np.int64)
_REVOKED: Final = "the token of this connection does not count any more"
_NODES_LOCKED_OUT: Final = (
    "with a first token the nodes would let each other in no more, for they have none: give them all one file, made by "
    "`bezant tokens generate --out`, as --cluster-token-file, or certificates as --tls-cert, --tls-key and --tls-ca; "
    "start each of them again, and then create it"
)
_ADMIN_KINDS: Final = np.zeros(KIND_COUNT, np.bool_)
_ADMIN_KINDS[[int(kind) for kind, scopes in COMMAND_SCOPES.items() if scopes == {Scope.ADMIN}]] = True

Mask = npt.NDArray[np.bool_]
Respond = Callable[[bytes | Exception], None]

_log = logging.getLogger("bezant")


class Guarding:
    """See the module. Used on the loop."""

    def __init__(
        self,
        member: Member,
        guard: Guard,
        schedule: Callable[[], None],
        is_one_of_several: Callable[[], bool] = lambda: False,
    ) -> None:
        """`schedule` has what was appended written; `is_one_of_several`: whether there are other groups."""
        self._is_one_of_several = is_one_of_several
        self.guard = guard
        self._member = member
        self._schedule = schedule
        self._allowed: dict[frozenset[Scope], Mask] = {}
        self._has_warned = False
        self._repeated: tuple[str, Operation, bytes, int] | None = None
        """Who asked last, for what, and in which term, if that could not be done yet."""
        self._refused_as = ""
        self._repeated_until_s = 0.0

    # ---- commands ----

    def preset(self, batch: Batch, preset: Words) -> Words:
        """The codes of a batch, with FORBIDDEN for commands that whoever sent them may not send.

        `preset` has a code for each command or is empty, which means none, as does the answer.
        """
        if not self.guard.asks_for_tokens:
            return preset
        opened: dict[bytes, str] = {}
        for run in batch.runs:
            first, end = batch.rows_of(run)
            principal = run.replier.principal
            if principal.prefixes:
                batch.limited_runs.append(run)
            codes = self._codes_of(principal, batch.commands[first:end], opened)
            if codes.any():
                if not len(preset):
                    preset = np.zeros(batch.command_count, np.int64)
                told = preset[first:end]
                told[told == 0] = codes[told == 0]
        return preset

    def _codes_of(self, principal: Principal, commands: Records, opened: dict[bytes, str]) -> Words:
        """Why commands are not executed, a code for each, or 0; empty if all are. Acts among them are written down."""
        if not self.guard.counts(principal):
            return np.full(len(commands), int(ResultCode.FORBIDDEN), np.int64)
        codes = _NO_CODES
        if not principal.may_command_all:
            codes = np.where(self.refused_commands(principal, commands, opened), int(ResultCode.FORBIDDEN), 0)
        if Scope.ADMIN not in principal.scopes:
            return codes
        acts = _acts_among(commands)
        if len(codes):
            acts &= codes == 0
        if not acts.any():
            return codes
        code = self._code_of_writing(principal, commands[acts])
        return codes if code is None else np.where(acts, int(code), codes if len(codes) else 0)

    def _code_of_writing(self, principal: Principal, acts: Records) -> ResultCode | None:
        """Write down what an administrator commands; why none of it may be executed, if that cannot be done."""
        try:
            self._write(principal, Operation.COMMANDS, _tell_commands(acts))
        except CorruptLog:
            raise
        except StorageError:
            return ResultCode.STORAGE_FULL
        except NotYet as error:
            self._warn(error)
            return ResultCode.OVERLOADED
        return None

    def refused_commands(self, principal: Principal, commands: Records, opened: dict[bytes, str]) -> Mask:
        """Which of these commands a principal may not send; the same as `command_refusal`, and `Principal.may_use`.

        `opened` are names of accounts, by their ids, that commands before these open, and gets those of these.
        """
        kinds = commands["kind"].astype(np.int64)
        kinds[(kinds < 0) | (kinds >= KIND_COUNT)] = 0
        refused: Mask = ~self._allowed_kinds(principal.scopes)[kinds]
        if Scope.ADMIN not in principal.scopes:
            refused |= (commands["flags"] & int(CommandFlag.IMPORTED)) != 0
            refused |= (kinds == int(CommandKind.OPEN)) & (commands["amount"] != 0)
        if principal.prefixes:
            refused |= ~self._may_use(principal, commands, kinds == int(CommandKind.OPEN), opened)
        return refused

    def _allowed_kinds(self, scopes: frozenset[Scope]) -> Mask:
        allowed = self._allowed.get(scopes)
        if allowed is None:
            one = Principal("", scopes)
            allowed = np.array([not command_refusal(one, kind) for kind in range(KIND_COUNT)])
            self._allowed[scopes] = allowed
        return allowed

    def _may_use(self, principal: Principal, commands: Records, opens: Mask, opened: dict[bytes, str]) -> Mask:
        """Of which commands the debit account has a name that begins as it must."""
        ids = np.stack([commands["debit_head"], commands["debit_tail"]], axis=1)
        may = self._have_names(principal, ids)
        for row in np.flatnonzero(opens | ~may).tolist():
            debit = id_bytes(*ids[row].tolist())
            if opens[row]:
                name = _name_in_open(commands[row], debit)
                if name:
                    opened[debit] = name
                may[row] = name != "" and principal.may_use(name)
            else:
                may[row] = debit in opened and principal.may_use(opened[debit])
        return may

    def _have_names(self, principal: Principal, ids: npt.NDArray[np.int64]) -> Mask:
        """Which ids, of shape (count, 2), are those of accounts that are here and whose names begin as they must."""
        names = self._member.replica.ledger.lookup_accounts(np.ascontiguousarray(ids))["name"]
        found = np.zeros(len(ids), np.bool_)
        for prefix in principal.prefixes:
            found |= np.char.startswith(names, prefix.encode("ascii"))
        return found

    # ---- requests ----

    def check(self, request: Request) -> None:
        """Raise `Forbidden` for a request that whoever asks may not ask; write down what an administrator asks for."""
        principal = request.principal
        if not self.guard.counts(principal):
            raise Forbidden(_REVOKED)
        if principal.prefixes:
            self._check_accounts(principal, request)
        if request.operation is Operation.CHANGE_TOKENS and not self.guard.asks_for_tokens:
            self._check_others_get_in()
        self.asked(principal, request.operation, request.body)

    def _check_others_get_in(self) -> None:
        """Raise `UsageError` where the first token would have the nodes let each other in no more."""
        has_others = len(self._member.configuration.members) > 1 or self._is_one_of_several()
        if has_others and not self.guard.nodes_get_in:
            raise UsageError(_NODES_LOCKED_OUT)

    def _check_accounts(self, principal: Principal, request: Request) -> None:
        words = {Operation.LOOKUP_ACCOUNTS: (2, 0), Operation.LOOKUP_EVENTS: (EVENT_QUERY.itemsize // 8, 2)}
        size, start = words.get(request.operation, (0, 0))
        if not size or len(request.body) % (8 * size):
            return  # It is about no account, or is refused for its size.
        asked = np.frombuffer(request.body, np.int64).reshape(-1, size)[:, start : start + 2]
        if not self._have_names(principal, asked).all():
            raise Forbidden("an account is none that this token is limited to, or is not there")

    def told(self, request: Request, answer: bytes) -> bytes:
        """What whoever asks is told of an answer."""
        if request.principal.prefixes and request.operation is Operation.LOOKUP_EVENTS:
            return hide_in_events(request.body, answer)
        return answer

    # ---- what administrators do ----

    def asked(self, principal: Principal, operation: Operation, body: bytes) -> None:
        """Write down that somebody asks for what is audited. Raises `StorageError` if there is no room for it, and
        `NotYet` if it cannot be done now: then it is not to be done."""
        if not self._is_audited(principal, operation, body):
            return
        if self._is_repeated(principal, operation, body, time.monotonic()):
            return
        try:
            self._write(principal, operation, tell_request(operation, body))
        except NotYet as error:
            if operation is not Operation.CHANGE_MEMBERS:
                raise
            # A voter that is lost, and is never heard of again, is removed by it. What comes of it is in the log.
            self._warn(error)

    def refused(self, principal: Principal, operation: Operation, body: bytes, why: Exception) -> None:
        """Write down that it was not done, if this node can."""
        if isinstance(why, Forbidden) or not self._is_audited(principal, operation, body):
            return
        outcome = str(why) or type(why).__name__
        now_s = time.monotonic()
        if self._is_repeated(principal, operation, body, now_s) and self._refused_as == outcome:
            return
        try:
            self._write(principal, operation, tell_request(operation, body), outcome)
            if isinstance(why, NotYet):
                self._note_asked_again(principal, operation, body, outcome, now_s)
        except CorruptLog:
            raise
        except (NotYet, StorageError) as error:
            self._warn(error)

    def ask(
        self,
        principal: Principal,
        operation: int,
        body: bytes,
        ask: Callable[[Respond], None],
        respond: Respond,
    ) -> None:
        """Have a request answered that goes its own way, and what is audited written down. Raises what `ask` does."""
        asked = Operation(operation)
        if not self._is_audited(principal, asked, body):
            ask(respond)
            return

        def note(answer: bytes | Exception) -> None:
            if isinstance(answer, Exception):
                self.refused(principal, asked, body, answer)
            respond(answer)

        try:
            self.asked(principal, asked, body)
            ask(note)
        except CorruptLog:
            raise
        except StorageError as error:
            respond(error)
        except (RemoteProtocolError, UsageError, AnsweredElsewhere) as error:
            self.refused(principal, asked, body, error)
            raise

    def _note_asked_again(
        self, principal: Principal, operation: Operation, body: bytes, outcome: str, now_s: float
    ) -> None:
        """It cannot be done yet, and who asked goes on asking, ten times a second: what does not change is written
        down once."""
        self._repeated = (principal.token_id, operation, body, self._member.term)
        self._refused_as, self._repeated_until_s = outcome, now_s + REPEATED_S

    def _is_repeated(self, principal: Principal, operation: Operation, body: bytes, now_s: float) -> bool:
        asked = (principal.token_id, operation, body, self._member.term)
        return asked == self._repeated and now_s < self._repeated_until_s

    def _is_audited(self, principal: Principal, operation: Operation, body: bytes) -> bool:
        """Whether it is written down: of metadata what erases some, be it to put other in its place."""
        if not principal.token_id or not OPERATION_RULES[operation].audited:
            return False
        if operation is not Operation.SET_METADATA:
            return True
        try:
            asked = decode_message(body, SetMetadata)
        except RemoteProtocolError:
            return False
        return self._member.replica.ledger.metadata.index_of(asked.subject_kind, asked.subject) != 0

    def _write(self, principal: Principal, operation: Operation, what: str, outcome: str = "") -> None:
        """Write down an act. Raises `StorageError` if there is no room for it, `NotYet` if it cannot be done now."""
        if not self._member.is_leader:
            return  # It is answered NOT_LEADER, and written down by whoever leads.
        self._repeated = None
        try:
            write_act(self._member.replica, principal.token_id, operation.name, what, outcome)
        except UsageError as error:
            raise NotYet(f"what is administered cannot be written down now, so it is not done: {error}") from error
        self._has_warned = False
        self._member.note_appended()
        self._schedule()

    def _warn(self, error: Exception) -> None:
        """Say once that the audit lacks something, until it is written again."""
        if not self._has_warned:
            self._has_warned = True
            _log.warning("bezant: not all that is administered, or refused, is written down for now: %s", error)


def _acts_among(commands: Records) -> Mask:
    """Which commands only an administrator may send; dated ones that are imported are no act."""
    kinds = commands["kind"]
    known = np.where((kinds < 0) | (kinds >= KIND_COUNT), 0, kinds)
    acts: Mask = _ADMIN_KINDS[known] | ((kinds == int(CommandKind.OPEN)) & (commands["amount"] != 0))
    acts &= (commands["flags"] & int(CommandFlag.IMPORTED)) == 0
    return acts


def _tell_commands(commands: Records) -> str:
    """How many of which kind, and the ids of the first."""
    numbers, counts = np.unique(commands["kind"], return_counts=True)
    told = ", ".join(f"{count} {CommandKind(number).name}" for number, count in zip(numbers, counts, strict=True))
    ids = [id_bytes(int(row["id_head"]), int(row["id_tail"])).hex() for row in commands[:IDS_TOLD_MAX]]
    more = ", ..." if len(commands) > IDS_TOLD_MAX else ""
    return f"{told}: {', '.join(ids)}{more}"


def _name_in_open(command: np.void, debit: bytes) -> str:
    """The name in an OPEN whose account id is the one of that name; "" if it is not, or there is no such name."""
    raw = command.tobytes()[2 * _ID_SIZE : 5 * _ID_SIZE].rstrip(b"\0")
    try:
        name = raw.decode("ascii")
        return name if account_id(name, currency_code(int(command["currency"]))) == debit else ""
    except (UnicodeDecodeError, InvalidAmountOrName):
        return ""
