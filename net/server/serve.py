"""`serve`: one node in one process, until SIGTERM or SIGINT.

Order of a start: take the addresses, see whether the folder can be had, compile the kernels, lock the folder, recover
the ledger, listen, say so. Order of a stop: listen no more, read no more, answer what came in, give clients a moment to
take the answers, mark the stop as clean.
"""

import asyncio
import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

import uvloop

from bezant.engine.compiled import kernel_digest
from bezant.engine.member import Member, StateAbandoned
from bezant.engine.node_file import NodeFile, read_node_file
from bezant.engine.opening import REPAIR_ADVICE, must_ask_for_group, open_member
from bezant.engine.repair import repair_from_group
from bezant.engine.replica import ReplicaSettings, shard_directory
from bezant.net.server.clients import CONNECTIONS_MAX, Clients, make_welcome
from bezant.net.server.connection import Connection
from bezant.net.server.echo import EchoProtocol
from bezant.net.server.joining import join_group
from bezant.net.server.peering import Peering
from bezant.net.server.reactor import Reactor
from bezant.net.server.starting import prepare_start, tell_findings
from bezant.protocol.errors import CorruptLog, UsageError
from bezant.protocol.messages import GroupFacts

LISTEN_DEFAULT: Final = "127.0.0.1:7420"
LISTEN_BACKLOG: Final = 1024
"""Connections that may wait to be accepted."""
SWITCH_INTERVAL_S: Final = 0.0005
"""How soon the sync thread gets the interpreter's lock back when the loop is busy."""
FILES_RESERVED: Final = 256
"""Open files that the log and the rest of the process may need; clients get what is left of the system's limit."""
PORT_MAX: Final = 65_535

_log = logging.getLogger("bezant")


def serve(
    data_directory: Path,
    listen: str | None,
    *,
    say: Callable[[str], None],
    echo: str | None = None,
    settings: ReplicaSettings | None = None,
    repairs: bool = False,
) -> int:
    """Run a node; returns the exit status. `say` gets a line when it listens, and one for the echo port if asked for.

    `repairs`: cut a damaged log before the damage first, and get the rest from the other members of the group.
    Without `listen` clients connect where the node file says, if there is one, else at LISTEN_DEFAULT. Raises
    `StorageError` and its kinds if the data folder does not let us, `UsageError` for an address in use.
    """
    node = read_node_file(data_directory)
    with ExitStack() as closing:

        def bind(address: str | None) -> list[socket.socket]:
            return [closing.enter_context(bound) for bound in (_bind(address) if address is not None else ())]

        sockets = _Sockets(
            clients=bind(_listen_address(node) if listen is None else listen),
            peers=bind(None if node is None else node.peer_address),
            echo=bind(echo),
        )
        prepare_start(data_directory)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        if repairs:
            _repair(data_directory, node)
        found = None
        if node is not None and must_ask_for_group(data_directory, node):
            found = uvloop.run(_join(node))
            if found is None:
                return 0
        while _open_and_run(data_directory, node, sockets, say, settings, found=found):
            pass
    return 0


def _repair(data_directory: Path, node: NodeFile | None) -> None:
    """Cut what is damaged off the log, and say so for the record."""
    report = repair_from_group(data_directory, node)
    if report is None:
        _log.warning("bezant: nothing is damaged, so nothing is repaired")
        return
    _log.warning(
        "bezant: %s This log is cut behind entry %d; what was behind it is set aside in %s, and %s. This node does not "
        "vote until it has the rest from the others",
        report.damage,
        report.last_index,
        shard_directory(data_directory, 0).path,
        ", ".join(report.set_aside) or "there was nothing",
    )


async def _join(node: NodeFile) -> GroupFacts | None:
    """Have the group take this node in; None if the node is told to stop before."""
    loop = asyncio.get_running_loop()
    joining = asyncio.create_task(join_group(node))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, joining.cancel)
    await asyncio.wait([joining])
    return None if joining.cancelled() else joining.result()


def _listen_address(node: NodeFile | None) -> str:
    return LISTEN_DEFAULT if node is None else node.client_address


class _Sockets(NamedTuple):
    """Bound sockets of a node: for clients, for the other members of its group, for the echo."""

    clients: list[socket.socket]
    peers: list[socket.socket]
    echo: list[socket.socket]

    def copied(self) -> "_Sockets":
        """The same places for one run, which closes what it is given."""
        return _Sockets(*([bound.dup() for bound in kind] for kind in self))


def _open_and_run(
    data_directory: Path,
    node: NodeFile | None,
    sockets: _Sockets,
    say: Callable[[str], None],
    settings: ReplicaSettings | None,
    *,
    found: GroupFacts | None,
) -> bool:
    """Run the node until it is told to stop, or must open its folder again: then True."""
    log_id = 0 if found is None else found.log_id
    try:
        member = open_member(data_directory, node, log_id=log_id, settings=settings)
    except CorruptLog as error:
        if node is None or len(node.members) == 1 or REPAIR_ADVICE in str(error):
            raise
        raise CorruptLog(f"{error}. {REPAIR_ADVICE}") from error
    try:
        tell_findings(member.replica)
        gc.freeze()
        abandoned = uvloop.run(_serve(member, node, sockets.copied(), say, found))
    finally:
        member.close()
    if abandoned is None:
        return False
    _log.warning("bezant: %s: the state is made anew from the checkpoint and the log", abandoned)
    return True


async def _serve(
    member: Member, node: NodeFile | None, sockets: _Sockets, say: Callable[[str], None], found: GroupFacts | None
) -> StateAbandoned | None:
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[StateAbandoned | None] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _settle, stopped, None)
    reactor = Reactor(member, loop)
    peering = None if node is None else Peering(reactor, node, loop, lambda error: _settle(stopped, error), found)
    welcome = make_welcome(reactor, f"bezant {version('bezant')}", kernel_digest())
    clients = Clients(reactor, welcome, _connections_max(), None if peering is None else peering.operations)
    if peering is not None:
        await peering.start(sockets.peers)
    servers = await _listen(loop, lambda: Connection(clients), sockets.clients)
    say(f"listening on {_address(sockets.clients[0])}")
    if sockets.echo:
        servers += await _listen(loop, EchoProtocol, sockets.echo)
        say(f"echo on {_address(sockets.echo[0])}")
    abandoned = await stopped
    if peering is not None and abandoned is None:
        await peering.hand_over()
    for running in servers:
        running.close()
    if abandoned is None:
        await clients.stop()
    else:
        clients.abort()
    if peering is not None:
        await peering.stop()
    await reactor.stop(settled=abandoned is None)
    return abandoned


def _settle(stopped: "asyncio.Future[StateAbandoned | None]", error: StateAbandoned | None) -> None:
    """Have the node stop, once, for the first reason."""
    if not stopped.done():
        stopped.set_result(error)


def _connections_max() -> int:
    """Raise this process's limit of open files as far as the system lets it; return what that leaves for clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + FILES_RESERVED
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return CONNECTIONS_MAX
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(limit - FILES_RESERVED, 1)


def _bind(address: str) -> list[socket.socket]:
    """Take an address, on which nobody can connect before `_listen`. Raises `UsageError`."""
    host, separator, port = address.rpartition(":")
    if not separator or not (port.isascii() and port.isdecimal()) or int(port) > PORT_MAX:
        raise UsageError(f"an address is written HOST:PORT, not {address!r}")
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, place in dict.fromkeys(found):
            bound = socket.socket(family, kind, protocol)
            sockets.append(bound)
            bound.setblocking(False)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind(place)
    except OSError as error:
        for bound in sockets:
            bound.close()
        raise _taken(address, error) from error
    return sockets


async def _listen(
    loop: asyncio.AbstractEventLoop, factory: Callable[[], asyncio.BaseProtocol], sockets: list[socket.socket]
) -> list[asyncio.Server]:
    """Let clients connect. Raises `UsageError` if another process has begun to listen there meanwhile."""
    try:
        for bound in sockets:
            bound.listen(LISTEN_BACKLOG)  # uvloop would not tell that somebody else listens there
        return [await loop.create_server(factory, sock=bound, backlog=LISTEN_BACKLOG) for bound in sockets]
    except OSError as error:
        raise _taken(_address(sockets[0]), error) from error


def _taken(address: str, error: OSError) -> UsageError:
    return UsageError(f"cannot listen on {address}: {error.strerror or error}; choose another with --listen")


def _address(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
