"""Who asks, and the connections to the ledger that each of them has.

The gateway lends nobody its own rights. Whoever shows a token (``Authorization: Bearer``, RFC 6750) is served over
connections that were opened with that token, so the nodes decide what it may do, and when it is revoked. Without a
token one is served where nodes ask for none, and has nothing but pages and probes elsewhere. Of a token nothing is kept
here but what its connections show; tables go by its digest.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from bezant.net.access.addresses import place_of
from bezant.net.gateway.asgi import Scope
from bezant.net.gateway.asking import Ledger
from bezant.net.gateway.hosts import is_static
from bezant.net.gateway.problems import GatewayProblem, Problem, ProblemRaised, raised_by, refusal
from bezant.protocol.access import digest_of, token_id_of
from bezant.protocol.errors import AccessDenied, BezantError, UsageError

PRINCIPAL: Final = "bezant.principal"
"""Where the scope of a request has its `Principal`."""
TOKENS_MAX: Final = 256
"""Tokens that have connections at a time; who was not heard for longest gives way, unless something is under way."""
OPENINGS_MAX: Final = 16
"""Tokens at a time that nodes are asked about."""
CLIENT_OPENINGS_MAX: Final = 4
"""Of those, tokens that come from one address."""
IDLE_S_MAX: Final = 60.0
"""Seconds without a request, at least, until the connections of a token are closed; twice as many at most."""
DENIED_S: Final = 1.0
"""Seconds for which nodes are not asked again about a token that they do not let in."""
AWAY_S: Final = 0.2
"""Seconds for which they are not asked again with a token with which none was reached."""
FAILED_MAX: Final = 1024
"""Such tokens that are remembered."""
_PUBLIC_PATHS: Final = frozenset({"/health", "/ready", "/problems"})
_SCHEME: Final = b"bearer "
_NO_TOKEN: Final = b""
_ASK_FOR_TOKEN: Final = "give a token: Authorization: Bearer TOKEN"
_NOT_LET_IN: Final = "the nodes do not know this token, or it was revoked"


class Principal(msgspec.Struct, frozen=True):
    """Who asks: ``name`` is what limits are kept by and is no secret; ``ledger`` is served to them."""

    name: str
    ledger: Ledger


class Served:
    """The ledger as one token sees it, and how many requests there are over it."""

    __slots__ = ("count", "is_retired", "opened", "opening", "used_s")

    def __init__(self) -> None:
        self.opened: Ledger | None = None
        self.opening: asyncio.Task[Ledger] | None = None
        self.count = 0
        self.used_s = 0.0
        self.is_retired = False
        """Whether no further request comes in, and it is closed behind the last of those under way."""

    @property
    def is_over(self) -> bool:
        """Whether nodes do not serve it any more."""
        return self.opened is not None and self.opened.is_over

    async def ledger(self) -> Ledger:
        """The ledger, once there is a connection. Raises `BezantError` and `ProblemRaised` if there will be none."""
        if self.opened is not None:
            return self.opened
        if self.opening is None:
            raise RuntimeError("nobody opens this ledger")
        return await asyncio.shield(self.opening)

    async def close(self) -> None:
        """Close its connections."""
        if self.opened is not None:
            await self.opened.wallet.close()


class Ledgers:
    """The ledger, as each of those who ask sees it. `own` answers probes; it is the caller's to close.

    `own_is_for_all`: it was opened without a token, and is served to all who have none while nodes ask for none.
    `open_ledger` connects with a token, or with none (""). It raises `BezantError`.
    """

    def __init__(
        self, own: Ledger, open_ledger: Callable[[str], Awaitable[Ledger]], *, own_is_for_all: bool = False
    ) -> None:
        self.own = own
        self._for_all = Served() if own_is_for_all else None
        self._open_ledger = open_ledger
        self._served: OrderedDict[bytes, Served] = OrderedDict()
        self._opening: dict[bytes, Served] = {}
        self._openings_of: Counter[str] = Counter()
        self._failed: OrderedDict[bytes, tuple[float, Problem]] = OrderedDict()
        """Until when nodes are not asked about a token again, and what is told until then."""
        self._closing: set[asyncio.Task[None]] = set()
        self._retired: set[Served] = set()
        self._loop = asyncio.get_running_loop()

    def name_of(self, scope: Scope, token: str | None) -> str:
        """What limits are kept by: the id of a token that nodes have let in, or the address."""
        if token is not None and digest_of(token) in self._served:
            return token_id_of(token)
        return _address_of(scope)

    async def enter(self, scope: Scope, token: str | None) -> tuple[Served, Ledger]:
        """The ledger for one request, which is to `leave`. Raises `ProblemRaised` if it has none."""
        if self._for_all is not None and not self.own.is_over:  # Where no token is asked for, none gives anything.
            self._for_all.count += 1
            return self._for_all, self.own
        key = _NO_TOKEN if token is None else digest_of(token)
        served = self._served.get(key)
        if served is not None and served.is_over:
            self._retire(self._served.pop(key))
            served = None
        if served is None:
            served = self._opening.get(key) or self._begin(key, token or "", _address_of(scope))
        else:
            self._served.move_to_end(key)
        # Counted before anything is awaited, so that it does not give way in between.
        served.count += 1
        try:
            return served, await served.ledger()
        except BezantError as error:
            self.leave(served)
            raise ProblemRaised(_problem_of(error, token or "")) from error
        except BaseException:
            self.leave(served)
            raise

    def leave(self, served: Served) -> None:
        """A request is answered."""
        served.count -= 1
        served.used_s = self._loop.time()
        if served.is_retired and not served.count:
            self._close_later(served)

    def _begin(self, key: bytes, token: str, address: str) -> Served:
        """Ask the nodes about a token."""
        until_s, problem = self._failed.get(key, (0.0, None))
        if problem is not None and until_s > self._loop.time():
            raise ProblemRaised(problem)
        if len(self._opening) >= OPENINGS_MAX:
            raise refusal(GatewayProblem.GATEWAY_OVERLOADED, "many new tokens are being asked about")
        if self._openings_of[address] >= CLIENT_OPENINGS_MAX:
            raise refusal(GatewayProblem.TOO_MANY_REQUESTS, "this client comes with many new tokens at once")
        served = self._opening[key] = Served()
        self._openings_of[address] += 1
        served.opening = asyncio.create_task(self._open(served, key, token, address))
        # All who wait may have gone before it fails.
        served.opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        return served

    async def _open(self, served: Served, key: bytes, token: str, address: str) -> Ledger:
        try:
            ledger = await self._open_ledger(token)
            try:
                self._make_room()
            except ProblemRaised:
                await ledger.wallet.close()
                raise
            served.opened, served.used_s = ledger, self._loop.time()
            self._served[key] = served
            return ledger
        except BezantError as error:
            pause_s = DENIED_S if isinstance(error, AccessDenied) else AWAY_S
            self._failed[key] = (self._loop.time() + pause_s, _problem_of(error, token))
            self._failed.move_to_end(key)
            while len(self._failed) > FAILED_MAX:
                self._failed.popitem(last=False)
            raise
        finally:
            del self._opening[key]
            self._openings_of[address] -= 1
            if not self._openings_of[address]:
                del self._openings_of[address]

    def _make_room(self) -> None:
        while len(self._served) >= TOKENS_MAX:
            idle = next((key for key, served in self._served.items() if not served.count), None)
            if idle is None:
                raise refusal(GatewayProblem.GATEWAY_OVERLOADED, f"{TOKENS_MAX} tokens are in use already")
            self._close_later(self._served.pop(idle))

    def _retire(self, served: Served) -> None:
        """Close it, but under no request: that would be told of a fault of ours, and not what the nodes say."""
        if served.count:
            served.is_retired = True
            self._retired.add(served)
        else:
            self._close_later(served)

    def _close_later(self, served: Served) -> None:
        self._retired.discard(served)
        closing = asyncio.create_task(served.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def close_idle(self) -> None:
        """Close what was not used for IDLE_S_MAX, again and again, until cancelled."""
        while True:
            await asyncio.sleep(IDLE_S_MAX)
            before_s = self._loop.time() - IDLE_S_MAX
            for key, served in list(self._served.items()):
                if not served.count and served.used_s <= before_s:
                    self._close_later(self._served.pop(key))

    async def close(self) -> None:
        """Close the connections of all tokens."""
        opening = [served.opening for served in self._opening.values() if served.opening is not None]
        for task in opening:
            task.cancel()
        if opening:
            await asyncio.wait(opening)
        for served in [*self._served.values(), *self._retired]:
            self._close_later(served)
        self._served.clear()
        if self._closing:
            await asyncio.wait(set(self._closing))


def _problem_of(error: BezantError, token: str) -> Problem:
    """What is told to who came with a token, or with none, of why there is no ledger for them: they may be anybody."""
    if isinstance(error, AccessDenied):
        return refusal(GatewayProblem.UNAUTHENTICATED, _NOT_LET_IN if token else _ASK_FOR_TOKEN).problem
    return raised_by(error, is_command=False, is_known=False).problem


def token_of(scope: Scope) -> str | None:
    """The token that a request shows. Raises `ProblemRaised` if what it shows is none, without repeating it."""
    shown = [value for name, value in scope["headers"] if name == b"authorization"]
    if not shown:
        return None
    if len(shown) > 1:
        raise refusal(GatewayProblem.REQUEST_INVALID, "a request has one Authorization")
    if shown[0][: len(_SCHEME)].lower() == _SCHEME:
        token: str = shown[0][len(_SCHEME) :].strip(b" ").decode("latin-1")
        try:
            token_id_of(token)
        except UsageError:
            pass  # what it says would repeat a secret, perhaps
        else:
            return token
    raise refusal(GatewayProblem.UNAUTHENTICATED, "that is no token: Authorization: Bearer TOKEN")


def is_public(path: str) -> bool:
    """Whether it says the same to everybody, and nothing of the ledger but whether it answers."""
    return path in _PUBLIC_PATHS or path.startswith("/problems/") or is_static(path)


def _address_of(scope: Scope) -> str:
    """Whose limits count: an address, or the network of 64 bits that everybody with one by IPv6 has to choose from."""
    client = scope.get("client")
    return place_of(client[0] if client else "")
