"""The description of the API (OpenAPI 3.1), the page that shows it, and what the problems mean. All from here alone."""

from typing import Any, Final

import msgspec
from litestar import Litestar, MediaType, Request, Response, get
from litestar.handlers import BaseRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme, Tag
from litestar.serialization import encode_json

from bezant.net.gateway.console import STATIC, console_page
from bezant.net.gateway.problems import PATH, PROBLEMS, GatewayProblem, refusal
from bezant.net.gateway.responses import QUESTION_PROBLEMS

_FILES: Final = {
    "docs.html": "text/html",
    "docs.css": "text/css",
    "docs.js": "text/javascript",
}
_TITLE: Final = "Bezant"

DOCUMENTATION: Final = OpenAPIConfig(
    title=_TITLE,
    version="1",
    summary="A digital wallet: durable, exactly once, verifiable.",
    description="Commands are named by a `transaction_id`, or an `Idempotency-Key`: sent again they get their first "
    "outcome. Whatever is not done is told as a problem (RFC 9457), whose `code` is one of those at `/problems`. "
    "Amounts are decimal strings, positions are opaque strings, times are RFC 3339 in UTC with nine digits. Where the "
    "ledger asks for tokens each request shows one, in the header Authorization and nowhere else.",
    components=Components(
        security_schemes={
            "token": SecurityScheme(
                type="http",
                scheme="bearer",
                description="A token as `bezant tokens create` makes it. The ledger decides what it may do.",
            )
        }
    ),
    security=[{"token": []}, {}],
    tags=[
        Tag("Transfers", "Money from one account to another"),
        Tag("Accounts", "Accounts, as they are and as they were"),
        Tag("Holds", "Amounts that are set aside"),
        Tag("Transactions", "Several transfers that are all done, or none"),
        Tag("History", "What happened, and proofs of it"),
        Tag("Ledger", "The ledger as a whole"),
        Tag("Push", "Being told"),
        Tag("Webhooks", "Having others told"),
        Tag("Operations", "The nodes behind it"),
    ],
    use_handler_docstrings=True,
    path="/_openapi",
    render_plugins=[],
)


class ProblemBody(msgspec.Struct, frozen=True):
    """What a problem means. `uses_id`: the id is used up, and the command will have this outcome for ever."""

    code: str
    status: int
    retryable: bool
    meaning: str
    result_code: int | None
    uses_id: bool


class ProblemsBody(msgspec.Struct, frozen=True):
    """All problems."""

    problems: list[ProblemBody]


@get(PATH.rstrip("/"), tags=["Ledger"], responses=QUESTION_PROBLEMS, operation_id="list_problems", sync_to_thread=False)
def list_problems() -> ProblemsBody:
    """List everything that an answer can be instead of what was asked for."""
    return ProblemsBody([ProblemBody(*row) for row in PROBLEMS.values()])


@get(
    PATH + "{code:str}", tags=["Ledger"], responses=QUESTION_PROBLEMS, operation_id="get_problem", sync_to_thread=False
)
def get_problem(code: str) -> ProblemBody:
    """Tell what a problem means."""
    row = PROBLEMS.get(code)
    if row is None:
        raise refusal(GatewayProblem.NOT_FOUND, "there is no such problem")
    return ProblemBody(*row)


class _Described:
    """The description as JSON, made once."""

    def __init__(self) -> None:
        self._body = b""

    def of(self, application: Litestar) -> bytes:
        """Of this application, which is the only one in a process."""
        if not self._body:
            self._body = encode_json(application.openapi_schema.to_schema())
        return self._body


def documentation_routes() -> list[BaseRouteHandler]:
    """The routes that describe the others."""
    described = _Described()

    @get("/openapi.json", include_in_schema=False, sync_to_thread=False)
    def openapi(request: Request[Any, Any, Any]) -> Response[bytes]:
        """The description."""
        return Response(described.of(request.app), media_type=MediaType.JSON)

    @get(["/docs", "/docs/{name:str}"], include_in_schema=False, sync_to_thread=False)
    def page(name: str = "docs.html") -> Response[bytes]:
        """The page, and what belongs to it."""
        if name not in _FILES:
            raise refusal(GatewayProblem.NOT_FOUND)
        return Response((STATIC / name).read_bytes(), media_type=_FILES[name])

    return [list_problems, get_problem, openapi, page, console_page]
