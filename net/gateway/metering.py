"""Counts what the gateway answers, by route and status, and tells it for Prometheus at /metrics.

Around everything else, so that what is refused at the door is counted, too. /healthz and /readyz are answered from
here, to everybody who comes and by whatever name: a prober has no token, and learns nothing but yes or no. Routes are
told as they are described, so no label has a name that a client has given, and there are only so many.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from bezant.net.gateway.asgi import Application, Message, Receive, Scope, Send
from bezant.net.gateway.asking import AnyLedger
from bezant.net.gateway.own import REFUSED
from bezant.net.gateway.transfers import TRANSFER_PATH
from bezant.net.metrics.exposition import Family, Sample, content_type, exposed
from bezant.net.metrics.families import counted, gauge, process_families
from bezant.net.metrics.latencies import Latencies, LoopWatch, resident_bytes
from bezant.protocol.errors import BezantError

READY_S_MAX: Final = 1.0
"""Seconds that a node has to answer for the gateway to be ready."""
FRESH_S: Final = 1.0
"""Seconds for which one answer of a node is told to all who ask."""
STALL_S_MAX: Final = 1.0
"""Seconds by which the loop may have woken up too late, the last time, in a process that is told to be healthy."""
OTHER: Final = "other"
"""Stands for routes that there are not, and methods that nobody uses."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_STREAMS: Final = ("/events", "/stream")
"""What the routes end with whose answers do not end by themselves."""
_JSON: Final = (b"content-type", b"application/json")
_encode = msgspec.json.Encoder().encode


class Own(Protocol):
    """Whom the gateway itself asks; see `OwnLedger`."""

    @property
    def is_refused(self) -> bool:
        """Whether the nodes do not let us in."""

    async def ping(self, *, timeout_s: float) -> None:
        """Have a node answer. Raises `BezantError`."""


class Meter:
    """What has been counted. Give it to `Metered` and to the routes."""

    def __init__(self, own: Own) -> None:
        self._own = own
        self.more: Callable[[], list[Family]] = list
        """What others have to tell besides."""
        self._started_s = time.monotonic()
        self._counts: dict[tuple[str, str, int], int] = {}
        self._latencies: dict[str, Latencies] = {}
        self._loop = Latencies()
        self.loop_watch = LoopWatch(asyncio.get_running_loop(), self._loop)
        self.in_flight = 0
        """Requests that are worked on, and streams that are open."""
        self._lock = asyncio.Lock()
        self._asked_s = float("-inf")
        self._unready = ""

    def note(self, method: str, route: str, status: int, nanoseconds: int) -> None:
        """A request has been answered; `status` 0: its client has gone before."""
        key = (method if method in _METHODS else OTHER, route, status)
        self._counts[key] = self._counts.get(key, 0) + 1
        if not route.endswith(_STREAMS):
            if route not in self._latencies:
                self._latencies[route] = Latencies()
            self._latencies[route].observe(nanoseconds)

    def stall(self) -> str:
        """Why the process is not healthy; "" if it is."""
        late_s = self.loop_watch.late_s
        return f"the loop was held up for {late_s:.1f} s just now" if late_s > STALL_S_MAX else ""

    async def unready(self) -> str:
        """Why nobody should be sent here; "" if somebody should. Asks a node once in FRESH_S, whoever wants to know."""
        if self._own.is_refused:
            return REFUSED
        loop = asyncio.get_running_loop()
        async with self._lock:
            if loop.time() - self._asked_s > FRESH_S:
                try:
                    async with asyncio.timeout(READY_S_MAX):
                        await self._own.ping(timeout_s=READY_S_MAX)
                    self._unready = ""
                except (BezantError, TimeoutError):
                    self._unready = "no node answers"
                self._asked_s = loop.time()
            return self._unready

    def families(self) -> list[Family]:
        """All metrics."""
        requests = [
            Sample({"method": method, "route": route, "status": str(status) if status else "gone"}, count)
            for (method, route, status), count in sorted(self._counts.items())
        ]
        latencies = [Sample({"route": route}, one.told()) for route, one in sorted(self._latencies.items())]
        uptime_s = time.monotonic() - self._started_s
        refused = {"rate": 429, "overload": 503}
        return [
            Family("bezant_gateway_requests", "counter", "requests that were answered", requests),
            Family("bezant_gateway_request_seconds", "histogram", "from its head to the end of its answer", latencies),
            counted(
                "bezant_gateway_refused",
                "requests that were refused for want of room or time",
                "reason",
                {reason: self._count_of(status) for reason, status in refused.items()},
            ),
            gauge(
                "bezant_gateway_token_refused",
                "1 while the nodes let the gateway itself in no more, as its token does not count; else 0",
                int(self._own.is_refused),
            ),
            gauge("bezant_gateway_requests_in_flight", "requests under way, streams included", self.in_flight),
            Family(
                "bezant_gateway_loop_lag_seconds",
                "histogram",
                "by which the loop wakes up later than asked for",
                [Sample({}, self._loop.told())],
            ),
            *self.more(),
            *process_families(uptime_s, resident_bytes(), time.process_time()),
        ]

    def _count_of(self, wanted: int) -> int:
        return sum(count for (_, _, status), count in self._counts.items() if status == wanted)


AnyMeter = NamedDependency[SkipValidation[Meter]]


class Metered:
    """An ASGI application around another one; see the module."""

    def __init__(self, application: Application, meter: Meter) -> None:
        self._application = application
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and count it."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        meter, path = self._meter, scope["path"]
        if path in {"/healthz", "/readyz"} and scope["method"] == "GET":
            await _send_verdict(send, meter.stall() or (await meter.unready() if path == "/readyz" else ""))
            return
        started_ns, status = time.monotonic_ns(), 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        meter.in_flight += 1
        try:
            await self._application(scope, receive, send_on)
        finally:
            meter.in_flight -= 1
            route = path if path == TRANSFER_PATH else scope.get("path_template") or OTHER
            meter.note(scope["method"], route, status, time.monotonic_ns() - started_ns)


async def _send_verdict(send: Send, fault: str) -> None:
    told = {"status": "unavailable", "reason": fault} if fault else {"status": "ok"}
    body = _encode(told)
    headers = [_JSON, (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 503 if fault else 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


@get("/metrics", include_in_schema=False)
async def get_metrics(request: Request[Any, Any, Any], meter: AnyMeter, ledger: AnyLedger) -> Response[bytes]:
    """Tell what was counted, for Prometheus, to whom the nodes would tell how they are."""
    await ledger.check_may_watch()
    format_ = content_type(request.headers.get("accept", ""))
    headers = {"cache-control": "no-store"}
    return Response(exposed(meter.families(), {}, format_), media_type=format_, headers=headers)


METER_ROUTES = (get_metrics,)
