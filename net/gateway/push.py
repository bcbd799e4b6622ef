"""Routes that tell what happens to an account as it is committed: server-sent events, and a WebSocket.

Each is a subscription of its own at a reader, with a bounded buffer; while a client does not read, the subscription is
not read either, and a client that takes nothing for SLOW_S_MAX is dropped. It resumes, at any gateway, behind the last
id that it has got, and misses nothing.
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Annotated, Any, Final, cast

import msgspec
from litestar import Request, WebSocket, get, websocket
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import HeaderParameter, QueryParameter, SkipValidation
from litestar.types import ASGIApp

from bezant.net.client.subscription import Subscription
from bezant.net.client.subscription_over_shards import AnySubscription, advanced
from bezant.net.gateway.accounts import AccountPath
from bezant.net.gateway.asgi import Receive, Scope, Send
from bezant.net.gateway.asking import AnyLedger, Ledger, account_of_path
from bezant.net.gateway.authorizing import PRINCIPAL
from bezant.net.gateway.bodies import CurrencyCode, EventBody
from bezant.net.gateway.connections import ABORT
from bezant.net.gateway.problems import GatewayProblem, ProblemRaised, not_that_far, raised_by, refusal
from bezant.net.gateway.responses import QUESTION_PROBLEMS
from bezant.protocol.errors import BezantError

HEARTBEAT_S: Final = 15.0
"""Seconds after which a client is told something even if nothing happens, and how far all is."""
SLOW_S_MAX: Final = 30.0
"""Seconds that a client may take for what it is being sent."""
EVENTS_PER_SENDING_MAX: Final = 256
RETRY_MS: Final = 1000
"""Milliseconds after which a browser connects again."""
_TAGS: Final = ["Push"]
STREAM: Final = "text/event-stream"
STREAM_HEADERS: Final = (
    (b"content-type", STREAM.encode()),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)
_TOKEN: Final = re.compile(r"-?[0-9]{1,20}(,-?[0-9]{1,20})*")
_TOKEN_SIZE_MAX: Final = 4096
_INT64: Final = range(-(1 << 63), 1 << 63)
_CLOSE_AGAIN_LATER: Final = 1013
_CLOSE_REFUSED: Final = 1008

_encode = msgspec.json.Encoder().encode

Told = list[tuple[str, EventBody]]
"""Events, each with the id that a client resumes behind."""


class Pushed(msgspec.Struct, frozen=True):
    """A message over a WebSocket. `event` is null in those that only tell, now and then, how far all is."""

    id: str
    event: EventBody | None


class Pushes:
    """The streams that there are, within bounds for one client and for all."""

    def __init__(self, *, count_max: int, client_count_max: int) -> None:
        self._count_max = count_max
        self._client_count_max = client_count_max
        self._open: dict[AnySubscription, str] = {}

    def add(self, subscription: AnySubscription, client: str) -> None:
        """Take on a stream of a client. Raises `ProblemRaised` if there is no room."""
        if len(self._open) >= self._count_max:
            raise refusal(GatewayProblem.GATEWAY_OVERLOADED, f"{self._count_max} streams are open already")
        if sum(name == client for name in self._open.values()) >= self._client_count_max:
            raise refusal(GatewayProblem.TOO_MANY_REQUESTS, f"{self._client_count_max} streams are open already")
        self._open[subscription] = client

    async def end(self, subscription: AnySubscription) -> None:
        """A stream is over."""
        self._open.pop(subscription, None)
        await subscription.close()

    async def close(self) -> None:
        """End all streams."""
        for subscription in list(self._open):
            await self.end(subscription)


AnyPushes = NamedDependency[SkipValidation[Pushes]]


class EventStream:
    """An ASGI application that tells one subscription as server-sent events (the HTML standard, section 9.2)."""

    def __init__(self, ledger: Ledger, pushes: Pushes, subscription: AnySubscription) -> None:
        self._ledger = ledger
        self._pushes = pushes
        self._subscription = subscription

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell until the client has gone, or does not read, or there is nothing more."""
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(STREAM_HEADERS)})
            await _sent(send, b"retry: %d\n\n" % RETRY_MS)
            async for told in batches(self._ledger, self._subscription, gone):
                await _sent(send, b"".join(_lines(token, event) for token, event in told) if told else self._progress())
            with suppress(TimeoutError):
                async with asyncio.timeout(SLOW_S_MAX):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            scope[ABORT]()
        finally:
            gone.cancel()
            await self._pushes.end(self._subscription)

    def _progress(self) -> bytes:
        """What is sent when nothing happens: no event, but the id from which to go on."""
        position = self._subscription.position
        return b": \n\n" if position is None else b"id: %s\n\n" % str(position).encode()


async def _sent(send: Send, body: bytes) -> None:
    async with asyncio.timeout(SLOW_S_MAX):
        await send({"type": "http.response.body", "body": body, "more_body": True})


def _lines(token: str, event: EventBody) -> bytes:
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (token.encode(), event.kind.encode(), _encode(event))


async def disconnected(receive: Receive) -> None:
    """Wait until a client has gone, whatever it says before."""
    while (await receive())["type"] not in {"http.disconnect", "websocket.disconnect"}:
        pass


async def batches(
    ledger: Ledger, subscription: AnySubscription, gone: "asyncio.Future[None]"
) -> AsyncGenerator[Told, None]:
    """What a subscription tells, a few events at a time; nothing where nothing happened for a while.

    Ends when `gone` is done, or when the subscription ends or fails: a client that comes back is told why, or goes on.
    """
    with suppress(BezantError):
        async with aclosing(followed(ledger, subscription, gone)) as told:
            async for batch in told:
                yield batch


async def followed(
    ledger: Ledger, subscription: AnySubscription, gone: "asyncio.Future[None]"
) -> AsyncGenerator[Told, None]:
    """The same; raises the `BezantError` that the subscription fails with."""
    arriving: asyncio.Future[list[Any]] | None = None
    is_single = isinstance(subscription, Subscription)
    try:
        # Where it stands is known when it has begun; before that a token of several shards says nothing.
        await subscription.begin()
        token = str(subscription.position)
        while True:
            if arriving is None:
                arriving = asyncio.ensure_future(subscription.next_events())
            waited: set[asyncio.Future[Any]] = {arriving, gone}
            await asyncio.wait(waited, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return
            if not arriving.done():
                yield []
                continue
            events, arriving = arriving.result(), None
            if not events:
                return
            for start in range(0, len(events), EVENTS_PER_SENDING_MAX):
                part = events[start : start + EVENTS_PER_SENDING_MAX]
                bodies = await ledger.event_bodies(part)
                told = []
                for event, body in zip(part, bodies, strict=True):
                    token = body.position if is_single else advanced(token, event.position)
                    told.append((token, body))
                yield told
            token = str(subscription.position)
    finally:
        if arriving is not None:
            arriving.cancel()


def read_after(text: str | None) -> int | str | None:
    """The place behind which to begin: a position, a token of several, or None for now. Raises `ProblemRaised`."""
    if text is None or text == "":
        return None
    if len(text) > _TOKEN_SIZE_MAX or not _TOKEN.fullmatch(text):
        raise refusal(GatewayProblem.REQUEST_INVALID, "one begins behind the id of an event, or 0 for all there are")
    if "," in text:
        return text
    if int(text) not in _INT64:
        raise refusal(GatewayProblem.REQUEST_INVALID, "a position has 64 bits")
    return int(text)


async def subscribe(
    ledger: Ledger, pushes: Pushes, client: str, account: tuple[str, str | None], after: str | None
) -> AnySubscription:
    """Begin to be told of an account, in a currency or in any. Raises `ProblemRaised` and `BezantError`."""
    name, currency = account
    place = read_after(after)
    if currency is not None:
        await ledger.decimals_of(currency)
    subscription = ledger.wallet.subscribe(accounts=[name], currency=currency or "", after=place)
    try:
        pushes.add(subscription, client)
        async with asyncio.timeout(ledger.timeout_s):
            await subscription.begin()
    except BaseException as error:
        await pushes.end(subscription)
        if isinstance(error, TimeoutError) and place:
            raise not_that_far(place, ledger.timeout_s) from error
        raise
    return subscription


@get(
    "/v1/accounts/{name:str}/events",
    tags=_TAGS,
    responses=QUESTION_PROBLEMS
    | {200: ResponseSpec(str, generate_examples=False, description="The events.", media_type=STREAM)},
    operation_id="stream_events",
)
async def stream_events(
    request: Request[Any, Any, Any],
    ledger: AnyLedger,
    pushes: AnyPushes,
    name: AccountPath,
    currency: CurrencyCode | None = None,
    *,
    after: Annotated[
        str | None,
        QueryParameter(
            required=False,
            max_length=_TOKEN_SIZE_MAX,
            description="Begin behind this id; 0 is the beginning. Without it, and without Last-Event-ID: from now on.",
        ),
    ] = None,
    last_event_id: Annotated[
        str | None,
        HeaderParameter(
            name="Last-Event-ID",
            required=False,
            max_length=_TOKEN_SIZE_MAX,
            description="The id of the last event that was received; browsers send it by themselves.",
        ),
    ] = None,
) -> ASGIApp:
    """Be told what happens to an account, as server-sent events, each named by its kind and with an `EventBody`.

    The same address is a WebSocket, too, whose messages are `{"id": ..., "event": ...}`.
    """
    client = request.scope[PRINCIPAL].name  # type: ignore[typeddict-item]
    place = after if last_event_id is None else last_event_id
    subscription = await subscribe(ledger, pushes, client, (account_of_path(name), currency), place)
    return cast(ASGIApp, EventStream(ledger, pushes, subscription))


@websocket("/v1/accounts/{name:str}/events")
async def socket_of_events(
    socket: WebSocket[Any, Any, Any],
    ledger: AnyLedger,
    pushes: AnyPushes,
    name: AccountPath,
    currency: CurrencyCode | None = None,
    *,
    after: Annotated[str | None, QueryParameter(required=False, max_length=_TOKEN_SIZE_MAX)] = None,
) -> None:
    """Tell what happens to an account over a WebSocket; what the client sends is not read, but for its end."""
    client = socket.scope[PRINCIPAL].name  # type: ignore[typeddict-item]
    await socket.accept()
    try:
        subscription = await subscribe(ledger, pushes, client, (account_of_path(name), currency), after)
    except (ProblemRaised, BezantError, TimeoutError) as error:
        await _refuse(socket, error)
        return
    gone = asyncio.ensure_future(disconnected(socket.receive))
    try:
        async for told in batches(ledger, subscription, gone):
            await _tell(socket, subscription, told)
        if not gone.done():
            await socket.close(_CLOSE_AGAIN_LATER)
    except TimeoutError:
        # The server ends the connection behind us, and does not wait for long either.
        return
    finally:
        gone.cancel()
        await pushes.end(subscription)


async def _tell(socket: WebSocket[Any, Any, Any], subscription: AnySubscription, told: Told) -> None:
    messages = [Pushed(token, event) for token, event in told] or [Pushed(str(subscription.position or ""), None)]
    for message in messages:
        async with asyncio.timeout(SLOW_S_MAX):
            await socket.send_text(_encode(message).decode())


async def _refuse(socket: WebSocket[Any, Any, Any], error: Exception) -> None:
    """Tell the problem as the only message, and close."""
    raised = refusal(GatewayProblem.NO_ANSWER)
    if isinstance(error, BezantError):
        raised = raised_by(error, is_command=False)
    elif isinstance(error, ProblemRaised):
        raised = error
    await socket.send_text(_encode(raised.problem).decode())
    await socket.close(_CLOSE_AGAIN_LATER if raised.problem.retryable else _CLOSE_REFUSED)


PUSH_ROUTES = (stream_events, socket_of_events)
