"""Everything that is not done, as a problem (RFC 9457): one table, of which result codes are a part.

``type`` is a reference to ``/problems/CODE`` at the gateway itself, which tells more. A problem says in ``retryable``
whether the same request, sent again with the same id, can still be done; and a command that had an outcome is told
about in ``transaction_id``, ``repeated`` and ``position``.
"""

from enum import Enum, unique
from typing import Final, NamedTuple

import msgspec

from bezant.net.client.results import Result
from bezant.net.client.transactions import TransactionResult
from bezant.protocol.codes import CODE_ROW, RESULT_CODES, ResultCode
from bezant.protocol.errors import (
    AccessDenied,
    BezantError,
    ConnectionFailed,
    ReceiptInvalid,
    RemoteProtocolError,
    RequestRefused,
    RequestTimedOut,
    UsageError,
)
from bezant.protocol.frames import FrameError
from bezant.protocol.kinds import CommandField

PROBLEM_TYPE: Final = b"application/problem+json"
RETRY_AFTER_S: Final = 1
"""Seconds after which to try again what could not be done now."""
PATH: Final = "/problems/"

HeaderList = list[tuple[bytes, bytes]]


@unique
class GatewayProblem(Enum):
    """Problems that are the gateway's own, as (status, retryable, what it means)."""

    REQUEST_INVALID = (400, False, "the request is not one that can be asked")
    CURRENCY_NOT_REGISTERED = (422, False, "the currency is not registered; nothing was done")
    NOT_FOUND = (404, False, "there is nothing there")
    METHOD_NOT_ALLOWED = (405, False, "this can be asked with other methods only")
    BODY_TOO_LATE = (408, True, "the body of the request did not come in time")
    BODY_TOO_LARGE = (413, False, "the body of the request is too large")
    MEDIA_TYPE_UNSUPPORTED = (415, False, "the body of a request is JSON: content-type application/json")
    TOO_MANY_REQUESTS = (429, True, "this client asks more than its share; nothing was done")
    INTERNAL_ERROR = (500, True, "a fault of the gateway; a command may have been done or not: repeat it with its id")
    NODE_NOT_UNDERSTOOD = (502, True, "the node answered with something else; repeat a command with its id")
    HOST_UNKNOWN = (421, False, "the request is for a host that this gateway does not go by; nothing was done")
    ORIGIN_FOREIGN = (403, False, "a page of another origin asks; nothing was done")
    UNAUTHENTICATED = (401, False, "who asks is not known")
    GATEWAY_OVERLOADED = (503, True, "the gateway has no room for the request now; nothing was done")
    NODE_UNREACHABLE = (503, True, "no node of the ledger can be reached")
    NODE_REFUSED = (503, True, "the node cannot answer now; nothing was done")
    NODE_DECLINED = (422, False, "the node declined the request; nothing was done")
    OUTCOME_UNKNOWN = (504, True, "unknown: no answer came in time; repeat the request with the same id to be told")
    NO_ANSWER = (504, True, "no answer came in time; nothing was asked to be done")


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of an answer that is a problem. See the module; what does not apply is left out.

    ``code`` names the kind of problem and ``result_code`` is its number if it is a result of the ledger. ``field`` is
    the member of the request that differs from what the id stands for. ``leg`` is the number, from 0, of the refused
    leg of a transaction.
    """

    type: str
    title: str
    status: int
    code: str
    retryable: bool
    detail: str = ""
    result_code: int | None = None
    transaction_id: str | None = None
    repeated: bool = False
    position: str | None = None
    field: str | None = None
    leg: int | None = None


class ProblemRow(NamedTuple):
    """One row of the table: what a problem is, whatever request it answers."""

    code: str
    status: int
    retryable: bool
    meaning: str
    result_code: int | None
    uses_id: bool


def _rows() -> dict[str, ProblemRow]:
    rows = [
        ProblemRow(row.code.name, row.http_status, row.retry_helps, row.meaning, int(row.code), row.uses_id)
        for row in RESULT_CODES
        if row.code is not ResultCode.COMMITTED
    ]
    for problem in GatewayProblem:
        status, retryable, meaning = problem.value
        rows.append(ProblemRow(problem.name, status, retryable, meaning, None, False))
    return {row.code: row for row in rows}


PROBLEMS: Final[dict[str, ProblemRow]] = _rows()
if len(PROBLEMS) != len(RESULT_CODES) - 1 + len(GatewayProblem):
    raise AssertionError("a problem of the gateway must not have the name of a result code")

FIELD_NAMES: Final[dict[CommandField, str]] = {
    CommandField.KIND: "kind",
    CommandField.FLAGS: "keep_open",
    CommandField.DEBIT: "from_account",
    CommandField.CREDIT: "to_account",
    CommandField.AMOUNT: "amount",
    CommandField.REFERENCE: "hold_id",
    CommandField.USER_DATA: "user_data",
    CommandField.CODE: "code",
    CommandField.TIMEOUT_MS: "expires_in_ms",
    CommandField.CURRENCY: "currency",
}
"""What a field of a command is called in requests."""

_NOT_NOW: Final = frozenset({FrameError.OVERLOADED, FrameError.BEHIND, FrameError.NOT_LEADER})

_encode = msgspec.json.Encoder().encode


class ProblemRaised(Exception):  # noqa: N818 - it says what happened, like our other exceptions
    """A request ends with this problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or problem.title)
        self.problem = problem


def not_that_far(place: int | str, timeout_s: float) -> ProblemRaised:
    """What is said where a place in the history was waited for in vain."""
    return refusal(
        GatewayProblem.NO_ANSWER,
        f"no reader told within {timeout_s:g} s what is at {place}: it is of another ledger, or they are behind",
    )


def refusal(kind: GatewayProblem | ResultCode, detail: str = "", *, transaction_id: str | None = None) -> ProblemRaised:
    """A problem to be raised, which the gateway sees by itself."""
    row = PROBLEMS[kind.name]
    problem = Problem(
        type=PATH + row.code,
        title=row.meaning,
        status=row.status,
        code=row.code,
        retryable=row.retryable,
        detail=detail,
        result_code=row.result_code,
        transaction_id=transaction_id,
    )
    return ProblemRaised(problem)


def problem_of_result(result: Result | TransactionResult, transaction_id: str) -> Problem:
    """What is told of a command, or a transaction, that was not done, or of which that is not known."""
    if result.code is None:
        return refusal(GatewayProblem.OUTCOME_UNKNOWN, transaction_id=transaction_id).problem
    row = CODE_ROW[int(result.code)]
    field = None if result.conflict_field is None else FIELD_NAMES.get(result.conflict_field)
    position = result.position if isinstance(result, Result) else None
    leg = result.leg if isinstance(result, TransactionResult) else None
    detail = f"{field} differs from what the id was used with" if field and row.code is ResultCode.ID_CONFLICT else ""
    return Problem(
        type=PATH + row.code.name,
        title=row.meaning.partition(";")[0],
        status=row.http_status,
        code=row.code.name,
        retryable=row.retry_helps,
        detail=detail,
        result_code=int(row.code),
        transaction_id=transaction_id,
        repeated=result.repeated,
        position=None if position is None else str(position),
        field=field,
        leg=leg,
    )


def raised_by(error: BezantError, *, is_command: bool, is_known: bool = True) -> ProblemRaised:
    """The problem that an exception of the SDK is; of a command, or of a question, where nothing is at stake.

    Who asks and is not known (`is_known`) is not told why: that names nodes, and what they say.
    """
    kind: GatewayProblem | ResultCode = GatewayProblem.INTERNAL_ERROR
    if isinstance(error, UsageError):
        kind = GatewayProblem.REQUEST_INVALID
    elif isinstance(error, AccessDenied):
        # The node was shown the token of whoever asks, or none if they have none.
        is_forbidden = error.code == FrameError.FORBIDDEN
        kind = ResultCode.FORBIDDEN if is_forbidden else GatewayProblem.UNAUTHENTICATED
    elif isinstance(error, RequestRefused):
        kind = GatewayProblem.NODE_REFUSED if error.code in _NOT_NOW else GatewayProblem.NODE_DECLINED
    elif isinstance(error, RemoteProtocolError | ReceiptInvalid):
        kind = GatewayProblem.NODE_NOT_UNDERSTOOD
    elif isinstance(error, ConnectionFailed):
        timed_out = isinstance(error, RequestTimedOut)
        unanswered = GatewayProblem.NO_ANSWER if timed_out else GatewayProblem.NODE_UNREACHABLE
        kind = GatewayProblem.OUTCOME_UNKNOWN if is_command else unanswered
    return refusal(kind, " ".join(str(error).split()) if is_known else "")


def rendered(problem: Problem) -> tuple[int, HeaderList, bytes]:
    """Status, headers and body of an answer that is a problem."""
    body = _encode(problem)
    headers = [(b"content-type", PROBLEM_TYPE), (b"content-length", b"%d" % len(body))]
    if problem.status in (429, 503):
        headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
    if problem.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="bezant"'))
    return problem.status, headers, body
