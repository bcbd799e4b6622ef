"""What every request passes first: who asks, how much of it, in which form."""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from uvicorn.protocols.utils import ClientDisconnected

from bezant.net.gateway.admission import Admission
from bezant.net.gateway.asgi import Application, Receive, Scope, Send
from bezant.net.gateway.asking import SLASH_IN_NAME
from bezant.net.gateway.authorizing import PRINCIPAL, Ledgers, Principal, is_public, token_of
from bezant.net.gateway.hosts import Hosts
from bezant.net.gateway.problems import GatewayProblem, Problem, ProblemRaised, raised_by, refusal, rendered
from bezant.net.gateway.responses import send_problem
from bezant.net.gateway.settings import BODY_BYTES_MAX, GatewaySettings
from bezant.net.gateway.transfers import TRANSFER_PATH, Transfers, replayed
from bezant.protocol.errors import BezantError

BODY_S_MAX: Final = 10.0
"""Seconds from the head of a request to the end of its body."""
_PUSH_PATH: Final = re.compile(rb"/v1/(?:accounts/[^/]+/events|cluster/stream)")
"""The paths of streams of events, as they come: those are counted elsewhere."""
_CONTENT_TYPE: Final = b"content-type"
_JSON: Final = b"application/json"
_ESCAPED_SLASH: Final = b"%2f"
_POLICY_VIOLATION: Final = 1008
_DENIAL: Final = "websocket.http.response"
"""The extension of ASGI by which a request for a WebSocket is answered as any other."""

_log = logging.getLogger("bezant")


class Front:
    """An ASGI application around that of the routes."""

    def __init__(self, application: Application, ledgers: Ledgers, settings: GatewaySettings) -> None:
        self._application = application
        self._ledgers = ledgers
        self._transfers = Transfers()
        self._hosts = Hosts(settings.hosts)
        self.admission = Admission(
            count_max=settings.requests_max,
            client_count_max=settings.client_requests_max,
            rate=settings.client_rate,
            burst=settings.client_burst,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or serve a socket."""
        if scope["type"] == "http":
            await self._on_request(scope, receive, send)
        else:
            await self._on_socket(scope, receive, send)

    async def _on_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._hosts.check(scope)
            token = token_of(scope)
            name = self._ledgers.name_of(scope, token)
            stays = not (scope["method"] == "GET" and _PUSH_PATH.fullmatch(scope["raw_path"]))
            self.admission.enter(name, time.monotonic(), stays=stays)
        except ProblemRaised as refused:
            await send_problem(send, refused.problem)
            return
        try:
            await self._serve(scope, name, token, partial(self._answer, scope, receive, send))
        except ProblemRaised as refused:
            await send_problem(send, refused.problem)
        finally:
            if stays:
                self.admission.leave(name)

    async def _serve(self, scope: Scope, name: str, token: str | None, answer: Callable[[], Awaitable[None]]) -> None:
        """Have it answered over the ledger that a token opens. Raises `ProblemRaised` if that is none."""
        if is_public(scope["path"]):
            scope[PRINCIPAL] = Principal(name, self._ledgers.own)
            await answer()
            return
        served, ledger = await self._ledgers.enter(scope, token)
        try:
            scope[PRINCIPAL] = Principal(name, ledger)
            await answer()
        finally:
            self._ledgers.leave(served)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] != "GET":
                receive = _in_time(receive)
            if scope["method"] == "POST":
                _check_media_type(scope)
                if scope["path"] == TRANSFER_PATH:
                    message = await receive()
                    is_whole = message["type"] == "http.request" and not message["more_body"]
                    if is_whole and len(message["body"]) <= BODY_BYTES_MAX:
                        await self._transfers.lane(scope, message["body"], send)
                        return
                    receive = replayed(message, receive)
        except ProblemRaised as refused:
            await send_problem(send, refused.problem)
            return
        except BezantError as error:
            await send_problem(send, raised_by(error, is_command=True).problem)
            return
        except Exception:
            _log.exception("bezant: a transfer failed")
            await send_problem(send, _fault())
            return
        await self._go_on(scope, receive, send)

    async def _on_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self._application(scope, receive, send)
            return
        try:
            self._hosts.check(scope)
            token = token_of(scope)
            name = self._ledgers.name_of(scope, token)
            self.admission.enter(name, time.monotonic(), stays=False)
            await self._serve(scope, name, token, partial(self._go_on, scope, receive, send))
        except ProblemRaised as refused:
            await _refuse_socket(scope, send, refused.problem)

    async def _go_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _ESCAPED_SLASH in scope["raw_path"].lower():
            scope["path"] = _path_with_slashes(scope["raw_path"])
        await self._application(scope, receive, send)


async def _refuse_socket(scope: Scope, send: Send, problem: Problem) -> None:
    """Answer a request for a WebSocket with a problem, or else with what a server makes of closing it: 403."""
    if _DENIAL not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": problem.code})
        return
    status, headers, body = rendered(problem)
    await send({"type": f"{_DENIAL}.start", "status": status, "headers": headers})
    await send({"type": f"{_DENIAL}.body", "body": body, "more_body": False})
    # uvicorn takes a return, after this answer alone, for a handshake that was forgotten, and complains.
    raise ClientDisconnected


def _check_media_type(scope: Scope) -> None:
    """Raise `ProblemRaised` unless the body says that it is JSON; without a body nothing needs to be said."""
    told = None
    has_body = False
    for name, value in scope["headers"]:
        if name == _CONTENT_TYPE:
            told = value
        elif name in {b"content-length", b"transfer-encoding"}:
            has_body = value != b"0"
    if told is None and not has_body:
        return
    if told != _JSON and (told or b"").partition(b";")[0].strip().lower() != _JSON:
        raise refusal(GatewayProblem.MEDIA_TYPE_UNSUPPORTED)


def _in_time(receive: Receive) -> Receive:
    """The same, but that a body has to come within BODY_S_MAX."""
    deadline_s = asyncio.get_running_loop().time() + BODY_S_MAX

    async def receive_in_time() -> Any:
        try:
            async with asyncio.timeout_at(deadline_s):
                return await receive()
        except TimeoutError as error:
            raise refusal(GatewayProblem.BODY_TOO_LATE, f"it has {BODY_S_MAX:g} s") from error

    return receive_in_time


def _path_with_slashes(raw_path: bytes) -> str:
    """A path decoded, with what was an escaped slash kept apart from those that part the path."""
    parts = [unquote_to_bytes(part) for part in raw_path.partition(b"?")[0].split(b"/")]
    return "/".join(part.decode("utf-8", "replace").replace("/", SLASH_IN_NAME) for part in parts)


def _fault() -> Problem:
    return refusal(GatewayProblem.INTERNAL_ERROR).problem
