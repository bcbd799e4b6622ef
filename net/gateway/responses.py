"""How answers are sent, and which problems a request can be answered with, as the documentation has it."""

from collections.abc import Iterable
from typing import Final

from litestar.openapi.datastructures import ResponseSpec

from bezant.net.gateway.asgi import Send
from bezant.net.gateway.problems import (
    PROBLEM_TYPE,
    PROBLEMS,
    GatewayProblem,
    HeaderList,
    Problem,
    rendered,
)
from bezant.protocol.codes import RESULT_CODES, ResultCode

_JSON: Final = (b"content-type", b"application/json")


async def send_answer(send: Send, body: bytes) -> None:
    """Send an answer of JSON that is no problem."""
    headers = [_JSON, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_problem(send: Send, problem: Problem, extra: HeaderList | None = None) -> None:
    """Send an answer that is a problem."""
    status, headers, body = rendered(problem)
    if extra:
        headers += extra
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


_OF_EVERYTHING: Final = (
    GatewayProblem.REQUEST_INVALID,
    GatewayProblem.UNAUTHENTICATED,
    GatewayProblem.HOST_UNKNOWN,
    GatewayProblem.ORIGIN_FOREIGN,
    ResultCode.FORBIDDEN,
    GatewayProblem.TOO_MANY_REQUESTS,
    GatewayProblem.INTERNAL_ERROR,
    GatewayProblem.NODE_NOT_UNDERSTOOD,
    GatewayProblem.GATEWAY_OVERLOADED,
    GatewayProblem.NODE_UNREACHABLE,
    GatewayProblem.NODE_REFUSED,
    GatewayProblem.NODE_DECLINED,
)
_OF_QUESTIONS: Final = (*_OF_EVERYTHING, GatewayProblem.NOT_FOUND, GatewayProblem.NO_ANSWER)
_OF_COMMANDS: Final = (
    *_OF_EVERYTHING,
    GatewayProblem.NOT_FOUND,
    GatewayProblem.CURRENCY_NOT_REGISTERED,
    GatewayProblem.BODY_TOO_LATE,
    GatewayProblem.BODY_TOO_LARGE,
    GatewayProblem.MEDIA_TYPE_UNSUPPORTED,
    GatewayProblem.OUTCOME_UNKNOWN,
)


def _specified(codes: Iterable[str]) -> dict[int, ResponseSpec]:
    """By status, which problems it tells."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    return {
        status: ResponseSpec(
            Problem,
            generate_examples=False,
            description="\n".join(f"- {code}: {PROBLEMS[code].meaning}" for code in sorted(of_status)),
            media_type=PROBLEM_TYPE.decode(),
        )
        for status, of_status in sorted(by_status.items())
    }


QUESTION_PROBLEMS: Final = _specified(kind.name for kind in _OF_QUESTIONS)
COMMAND_PROBLEMS: Final = _specified(
    [kind.name for kind in _OF_COMMANDS]
    + [row.code.name for row in RESULT_CODES if row.code not in (ResultCode.COMMITTED, ResultCode.UNDECIDED)]
)
TRANSACTION_PROBLEMS: Final = COMMAND_PROBLEMS | _specified([ResultCode.UNDECIDED.name])
