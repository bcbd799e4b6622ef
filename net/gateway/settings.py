"""What a gateway is told when it is started, and the limits that it keeps."""

import re
from typing import Final

import msgspec

from bezant.protocol.errors import UsageError

DEADLINES_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""The deadlines that requests have; what is asked for is rounded down to one of them. Few, because commands with the
same deadline travel in the same frame."""
BODY_BYTES_MAX: Final = 128 << 10
"""Of one request: a transaction of as many legs as there can be fits."""
CLIENTS_TRACKED_MAX: Final = 10_000
"""Clients whose rates are known at a time; who was not heard for longest is forgotten first."""
_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9a-fA-F:.]{2,45}")


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits are refusals, told with the status in brackets.

    ``connect``: the nodes, "host:port,...". ``timeout_s``: the deadline of requests that name none. ``requests_max``:
    requests that are worked on at a time (503). ``client_requests_max``: of those, of one client (429).
    ``client_rate``: requests of one client a second, on average (429); ``client_burst`` may come at once.
    ``connections_max``: sockets of clients, at most half of them of one address; more are closed at once.
    ``streams_max``: streams of events (503), and ``client_streams_max`` of one client (429). ``hosts``: names besides
    those of loopback by which it may be asked (421). ``certificate`` and ``key``: files with which it shows clients who
    it is, by TLS alone; ``insecure_listen``: it may be reached from other machines without TLS, or before nodes that
    ask for no tokens. ``webhooks``: the folder that keeps them, "" for none; ``webhook_allow``: networks that they may
    reach although not public, and by http; ``webhook_ca``: a file of authorities that vouch for them, beside those that
    the machine trusts; ``webhook_attempts_max``: attempts until a message is given up, with pauses of
    ``webhook_backoff_s`` seconds, doubled each time. ``token_file`` has the gateway's own token, if it is not to be had
    elsewhere; it is read again when that counts no more.
    """

    connect: str
    token_file: str = ""
    timeout_s: float = 5.0
    requests_max: int = 8192
    client_requests_max: int = 1024
    client_rate: float = 50_000.0
    client_burst: int = 10_000
    connections_max: int = 20_000
    streams_max: int = 2000
    client_streams_max: int = 200
    hosts: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""
    insecure_listen: bool = False
    webhooks: str = ""
    webhook_allow: tuple[str, ...] = ()
    webhook_ca: str = ""
    webhook_attempts_max: int = 8
    webhook_backoff_s: float = 1.0

    def __post_init__(self) -> None:
        if self.timeout_s not in DEADLINES_S:
            raise UsageError(f"the deadline of requests is one of {', '.join(f'{s:g}' for s in DEADLINES_S)} seconds")
        if bool(self.certificate) != bool(self.key):
            raise UsageError("--listen-cert and --listen-key belong together")
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                raise UsageError(f"a host is a name without a scheme, a port or a path, not {host!r}")
        if not (self.webhook_attempts_max > 0 and self.webhook_backoff_s > 0):
            raise UsageError("attempts and pauses of webhooks are above 0")
        for name in ("requests_max", "client_requests_max", "client_rate", "client_burst"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is above 0")
        for name in ("connections_max", "streams_max", "client_streams_max"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is above 0")
