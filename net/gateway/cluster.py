"""Routes that tell how the nodes behind the gateway are: once, or every second as server-sent events.

Whoever asks, the nodes are looked at no more than about once a second, by the gateway itself; it tells whom the nodes
would tell.
"""

import asyncio
import time
from collections import Counter
from contextlib import suppress
from typing import Any, Final, cast

import msgspec
from litestar import Request, get
from litestar.datastructures import CacheControlHeader
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import SkipValidation
from litestar.types import ASGIApp

from bezant.net.access.addresses import SHARE
from bezant.net.client.watching import ClusterWatch, Look
from bezant.net.gateway.asgi import Receive, Scope, Send
from bezant.net.gateway.asking import AnyLedger, Ledger
from bezant.net.gateway.authorizing import PRINCIPAL
from bezant.net.gateway.cluster_bodies import ClusterBody, cluster_body
from bezant.net.gateway.connections import ABORT
from bezant.net.gateway.conversions import time_text
from bezant.net.gateway.problems import GatewayProblem, refusal
from bezant.net.gateway.push import SLOW_S_MAX, STREAM, STREAM_HEADERS, disconnected
from bezant.net.gateway.responses import QUESTION_PROBLEMS

LISTENERS_MAX: Final = 64
"""Streams of it that are open at a time; more are refused (503), and so are more than one in SHARE of so many to one
client (429)."""
PERIOD_S: Final = 1.0
"""Seconds between two events of a stream."""
FRESH_S: Final = 0.9
"""Seconds for which a look is told to all who ask."""
LOOK_S_MAX: Final = 1.0
"""Seconds that a node has to answer."""
_TAGS: Final = ["Operations"]
_encode = msgspec.json.Encoder().encode


class Cluster:
    """The nodes behind the gateway, as they were when they were looked at last."""

    def __init__(self, watch: ClusterWatch) -> None:
        self._watch = watch
        self._lock = asyncio.Lock()
        self._looked_s = float("-inf")
        self._before: dict[str, Look] = {}
        self._body: ClusterBody | None = None
        self._listeners: Counter[str] = Counter()
        """How many streams each client has."""
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def closed(self) -> "asyncio.Future[None]":
        """Done when the gateway stops."""
        return self._closed

    async def latest(self) -> ClusterBody:
        """How all nodes are, no more than FRESH_S ago."""
        loop = asyncio.get_running_loop()
        async with self._lock:
            if self._body is None or loop.time() - self._looked_s > FRESH_S:
                looks = await self._watch.look(LOOK_S_MAX)
                self._body = cluster_body(time_text(time.time_ns()), looks, self._before)
                self._before = {look.address: look for look in looks}
                self._looked_s = loop.time()
            return self._body

    def enter(self, client: str) -> None:
        """Take on a listener, by the name that limits are kept by. Raises `ProblemRaised` if there are too many."""
        if self._listeners.total() >= LISTENERS_MAX:
            raise refusal(GatewayProblem.GATEWAY_OVERLOADED, f"{LISTENERS_MAX} streams of it are open already")
        client_max = LISTENERS_MAX // SHARE
        if self._listeners[client] >= client_max:
            raise refusal(GatewayProblem.TOO_MANY_REQUESTS, f"{client_max} streams of it are open already")
        self._listeners[client] += 1

    def leave(self, client: str) -> None:
        """A listener has gone."""
        self._listeners[client] -= 1
        if not self._listeners[client]:
            del self._listeners[client]

    async def close(self) -> None:
        """End all streams, and leave the nodes."""
        if not self._closed.done():
            self._closed.set_result(None)
        self._watch.close()


AnyCluster = NamedDependency[SkipValidation[Cluster]]


class ClusterStream:
    """An ASGI application that tells a cluster as server-sent events (the HTML standard, section 9.2)."""

    def __init__(self, cluster: Cluster, ledger: Ledger, client: str) -> None:
        """`client` has entered."""
        self._cluster = cluster
        self._ledger = ledger
        self._client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell until the client has gone, or does not read, or may not be told any more, or the gateway stops."""
        gone = asyncio.ensure_future(disconnected(receive))
        waited: set[asyncio.Future[Any]] = {gone, self._cluster.closed}
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(STREAM_HEADERS)})
            while not (gone.done() or self._cluster.closed.done() or self._ledger.is_over):
                body = _encode(await self._cluster.latest())
                async with asyncio.timeout(SLOW_S_MAX):
                    await send({"type": "http.response.body", "body": _event(body), "more_body": True})
                await asyncio.wait(waited, timeout=PERIOD_S, return_when=asyncio.FIRST_COMPLETED)
            with suppress(TimeoutError):
                async with asyncio.timeout(SLOW_S_MAX):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            scope[ABORT]()
        finally:
            gone.cancel()
            self._cluster.leave(self._client)


def _event(body: bytes) -> bytes:
    return b"event: cluster\ndata: %s\n\n" % body


@get(
    "/v1/cluster",
    tags=_TAGS,
    responses=QUESTION_PROBLEMS,
    operation_id="get_cluster",
    cache_control=CacheControlHeader(no_store=True),
)
async def get_cluster(cluster: AnyCluster, ledger: AnyLedger) -> ClusterBody:
    """Tell how every node is: who leads, how far each is, what waits, how long things take.

    Who asks now and then gets counters to subtract; rates and quantiles are of the time since this gateway looked
    before, a second or so if somebody follows `/v1/cluster/stream`. Nodes that cannot be reached are told of, too.
    """
    await ledger.check_may_watch()
    return await cluster.latest()


@get(
    "/v1/cluster/stream",
    tags=_TAGS,
    responses=QUESTION_PROBLEMS
    | {200: ResponseSpec(str, generate_examples=False, description="The events.", media_type=STREAM)},
    operation_id="stream_cluster",
)
async def stream_cluster(request: Request[Any, Any, Any], cluster: AnyCluster, ledger: AnyLedger) -> ASGIApp:
    """Be told the same as by `/v1/cluster` every second, as server-sent events named `cluster`."""
    await ledger.check_may_watch()
    client = request.scope[PRINCIPAL].name  # type: ignore[typeddict-item]
    cluster.enter(client)
    return cast(ASGIApp, ClusterStream(cluster, ledger, client))


CLUSTER_ROUTES = (get_cluster, stream_cluster)
