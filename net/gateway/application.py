"""The routes, put together by Litestar, and how whatever they raise becomes a problem."""

import logging
from typing import Any, Final, cast

from litestar import Litestar, Request, Response
from litestar.di import Provide
from litestar.exceptions import HTTPException, MethodNotAllowedException
from litestar.exceptions.http_exceptions import ValidationException
from litestar.handlers import BaseRouteHandler
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.types import ControllerRouterHandler, HTTPScope

from bezant.net.gateway.accounts import ACCOUNT_ROUTES
from bezant.net.gateway.asking import Ledger, make_call, make_question
from bezant.net.gateway.authorizing import PRINCIPAL
from bezant.net.gateway.cluster import CLUSTER_ROUTES, Cluster
from bezant.net.gateway.documentation import DOCUMENTATION, documentation_routes
from bezant.net.gateway.history import HISTORY_ROUTES
from bezant.net.gateway.holds import HOLD_ROUTES
from bezant.net.gateway.ledger import LEDGER_ROUTES
from bezant.net.gateway.metering import METER_ROUTES, Meter
from bezant.net.gateway.moments import make_moment, make_range
from bezant.net.gateway.problems import PROBLEM_TYPE, GatewayProblem, ProblemRaised, raised_by, refusal, rendered
from bezant.net.gateway.push import PUSH_ROUTES, Pushes
from bezant.net.gateway.settings import BODY_BYTES_MAX
from bezant.net.gateway.transactions import TRANSACTION_ROUTES
from bezant.net.gateway.transfers import balance_transfer
from bezant.net.gateway.webhooks.hooks import Webhooks
from bezant.net.gateway.webhooks.routes import WEBHOOK_ROUTES
from bezant.protocol.errors import BezantError

_log = logging.getLogger("bezant")

_BY_STATUS: Final = {
    404: GatewayProblem.NOT_FOUND,
    405: GatewayProblem.METHOD_NOT_ALLOWED,
    413: GatewayProblem.BODY_TOO_LARGE,
    415: GatewayProblem.MEDIA_TYPE_UNSUPPORTED,
}
_ROUTES: Final[tuple[BaseRouteHandler, ...]] = (
    balance_transfer,
    *ACCOUNT_ROUTES,
    *HOLD_ROUTES,
    *TRANSACTION_ROUTES,
    *HISTORY_ROUTES,
    *LEDGER_ROUTES,
    *PUSH_ROUTES,
    *CLUSTER_ROUTES,
    *WEBHOOK_ROUTES,
    *METER_ROUTES,
)
_STATUS_FAULT: Final = 500

Anyone = Request[Any, Any, Any]


def _ledger_of(scope: HTTPScope) -> Ledger:
    return cast(Ledger, scope[PRINCIPAL].ledger)  # type: ignore[typeddict-item]


class _Application(Litestar):
    """Bodies are of one kind here. Litestar would load, and ask about each, all kinds that happen to be installed,
    Pydantic's and attrs' among them: a sixth of the processor time of a start."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]


def make_application(pushes: Pushes, cluster: Cluster, meter: Meter, webhooks: Webhooks | None) -> Litestar:
    """The routes, over the ledger of whoever asks and its nodes, and the streams that they open."""
    handlers: list[ControllerRouterHandler] = [*_ROUTES, *documentation_routes()]
    return _Application(
        handlers,
        dependencies={
            "ledger": Provide(_ledger_of, sync_to_thread=False),
            "pushes": Provide(lambda: pushes, sync_to_thread=False),
            "cluster": Provide(lambda: cluster, sync_to_thread=False),
            "webhooks": Provide(lambda: webhooks, sync_to_thread=False),
            "meter": Provide(lambda: meter, sync_to_thread=False),
            "question": Provide(make_question, sync_to_thread=False),
            "call": Provide(make_call, sync_to_thread=False),
            "moment": Provide(make_moment, sync_to_thread=False),
            "pages": Provide(make_range, sync_to_thread=False),
        },
        exception_handlers={
            ProblemRaised: _on_problem,
            BezantError: _on_error_of_ours,
            TimeoutError: _on_timeout,
            HTTPException: _on_error_of_http,
            Exception: _on_fault,
        },
        openapi_config=DOCUMENTATION,
        request_max_body_size=BODY_BYTES_MAX,
        logging_config=None,
    )


def _on_problem(request: Anyone, raised: ProblemRaised) -> Response[bytes]:
    status, headers, body = rendered(raised.problem)
    told = {name.decode(): value.decode() for name, value in headers[1:]}
    return Response(body, status_code=status, headers=told, media_type=PROBLEM_TYPE.decode())


def _on_error_of_ours(request: Anyone, error: BezantError) -> Response[bytes]:
    return _on_problem(request, raised_by(error, is_command=request.method == "POST"))


def _on_timeout(request: Anyone, _error: TimeoutError) -> Response[bytes]:
    is_command = request.method == "POST"
    return _on_problem(request, refusal(GatewayProblem.OUTCOME_UNKNOWN if is_command else GatewayProblem.NO_ANSWER))


def _on_error_of_http(request: Anyone, error: HTTPException) -> Response[bytes]:
    """What Litestar refuses by itself: what is no route, and what does not have the form that a route wants."""
    if error.status_code >= _STATUS_FAULT:
        return _on_fault(request, error)
    kind = _BY_STATUS.get(error.status_code, GatewayProblem.REQUEST_INVALID)
    detail = "" if kind in {GatewayProblem.NOT_FOUND, GatewayProblem.METHOD_NOT_ALLOWED} else error.detail
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        detail = "; ".join(" ".join(str(part) for part in item.values()) for item in error.extra if item) or detail
    answer = _on_problem(request, refusal(kind, detail))
    if isinstance(error, MethodNotAllowedException):
        answer.headers.update(error.headers or {})
    return answer


def _on_fault(request: Anyone, error: Exception) -> Response[bytes]:
    _log.error("bezant: %s %s failed", request.method, request.scope["path"], exc_info=error)
    return _on_problem(request, refusal(GatewayProblem.INTERNAL_ERROR))
