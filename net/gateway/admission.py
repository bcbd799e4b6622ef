"""How much of the gateway one client may have, and all of them together. Without clock or sockets.

A client has a bucket of tokens (RFC 2698's, with one rate): one for each request, which fills at ``rate`` a second up
to ``burst``.
"""

from collections import OrderedDict

from bezant.net.gateway.problems import GatewayProblem, refusal
from bezant.net.gateway.settings import CLIENTS_TRACKED_MAX


class _Client:
    """What is known of a client: its tokens as of a time in seconds, and its requests that are worked on."""

    __slots__ = ("as_of_s", "count", "tokens")

    def __init__(self, tokens: float, as_of_s: float) -> None:
        self.tokens = tokens
        self.as_of_s = as_of_s
        self.count = 0


class Admission:
    """See the module. Limits are those of `GatewaySettings`; times are seconds of one monotonic clock."""

    def __init__(self, *, count_max: int, client_count_max: int, rate: float, burst: int) -> None:
        self._count_max = count_max
        self._client_count_max = client_count_max
        self._rate = rate
        self._burst = float(burst)
        self._count = 0
        self._clients: OrderedDict[str, _Client] = OrderedDict()

    @property
    def count(self) -> int:
        """Requests that are worked on."""
        return self._count

    def enter(self, name: str, now_s: float, *, stays: bool = True) -> None:
        """Let a request of a client in, which is to `leave` if it `stays`. Raises `ProblemRaised` if it may not."""
        client = self._clients.get(name)
        if client is None:
            self._make_room()
            client = self._clients[name] = _Client(self._burst, now_s)
        else:
            self._clients.move_to_end(name)
        tokens = min(self._burst, client.tokens + (now_s - client.as_of_s) * self._rate)
        client.as_of_s = now_s
        client.tokens = tokens
        if tokens < 1.0:
            raise refusal(GatewayProblem.TOO_MANY_REQUESTS, f"more than {self._rate:g} requests a second")
        client.tokens = tokens - 1.0
        if not stays:
            return
        if client.count >= self._client_count_max:
            raise refusal(GatewayProblem.TOO_MANY_REQUESTS, f"{self._client_count_max} requests are under way already")
        if self._count >= self._count_max:
            raise refusal(GatewayProblem.GATEWAY_OVERLOADED, f"{self._count_max} requests are under way already")
        client.count += 1
        self._count += 1

    def leave(self, name: str) -> None:
        """A request that was let in is answered."""
        self._count -= 1
        client = self._clients.get(name)
        if client is not None:
            client.count -= 1

    def _make_room(self) -> None:
        """Forget who was not heard for longest of those that have nothing under way: its bucket is full again soon."""
        if len(self._clients) < CLIENTS_TRACKED_MAX:
            return
        idle = next((name for name, client in self._clients.items() if not client.count), None)
        if idle is None:
            raise refusal(GatewayProblem.GATEWAY_OVERLOADED, f"{CLIENTS_TRACKED_MAX} clients have requests under way")
        del self._clients[idle]
