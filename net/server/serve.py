"""`serve`: one node in one process, until SIGTERM or SIGINT.

Order of a start: take the addresses, see whether the folder can be had, compile the kernels, lock the folder, recover
the ledger, listen, say so. Order of a stop: listen no more, read no more, answer what came in, give clients a moment to
take the answers, mark the stop as clean.
"""

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import uvloop

from bezant.engine.compiled import kernel_digest
from bezant.engine.member import ALONE, Member, StateAbandoned
from bezant.engine.node_file import NodeFile, read_node_file
from bezant.engine.opening import REPAIR_ADVICE, must_ask_for_group, open_member
from bezant.engine.placement.file import read_map
from bezant.engine.repair import repair_from_group
from bezant.engine.replica import ReplicaSettings, shard_directory
from bezant.net.access.credentials import use_credentials
from bezant.net.access.guard import Guard
from bezant.net.access.settings import OPEN, NodeSecurity, check_listening
from bezant.net.logs import about, add_fields
from bezant.net.metrics.http import Watchers, check_watchers
from bezant.net.metrics.latencies import LoopWatch
from bezant.net.placement.store import open_store
from bezant.net.server.allocation import keep_freed_memory
from bezant.net.server.clients import Clients, make_welcome
from bezant.net.server.connection import Connection
from bezant.net.server.coordinating import Coordinator
from bezant.net.server.echo import EchoProtocol
from bezant.net.server.following_map import MapFollower, await_map
from bezant.net.server.joining import join_group
from bezant.net.server.listening import Listener, address_of, bind_address, listen_on
from bezant.net.server.moving import Moving
from bezant.net.server.moving_out import Around
from bezant.net.server.open_connections import files_for_connections
from bezant.net.server.peering import Peering
from bezant.net.server.placing import Placing
from bezant.net.server.reactor import Reactor
from bezant.net.server.reading import Reading
from bezant.net.server.reporting import find_unready, report
from bezant.net.server.shard_links import ShardLinks
from bezant.net.server.starting import prepare_start, tell_findings
from bezant.net.server.watchers import node_pages
from bezant.protocol.errors import CorruptLog, UsageError
from bezant.protocol.messages import GroupFacts
from bezant.protocol.placement import METADATA_SHARD

LISTEN_DEFAULT: Final = "127.0.0.1:7420"
SWITCH_INTERVAL_S: Final = 0.0005
"""How soon the sync thread gets the interpreter's lock back when the loop is busy."""

_Found = TypeVar("_Found")

_log = logging.getLogger("bezant")


def serve(
    data_directory: Path,
    listen: str | None,
    *,
    say: Callable[[str], None],
    echo: str | None = None,
    settings: ReplicaSettings | None = None,
    repairs: bool = False,
    reader: bool = True,
    reader_listen: str | None = None,
    placement: Sequence[str] | None = None,
    security: NodeSecurity = OPEN,
    metrics: str | None = None,
    reader_metrics: str | None = None,
) -> int:
    """Run a node; returns the exit status. `say` gets a line when it listens, and one for the echo port if asked for.

    `repairs`: cut a damaged log before the damage first, and get the rest from the other members of the group.
    Without `listen` clients connect where the node file says, if there is one, else at LISTEN_DEFAULT. A child
    process is the node's `reader`, unless there is to be none, at `reader_listen` or any free port of the same host.
    `placement` is where slot maps are kept, if the node file is not to say it. `security`: how the wire is kept
    private, and who is let in; a node that others than this machine could reach without that does not start.
    `metrics` and `reader_metrics`: where the node, and its reader, tell how they are, by HTTP (`net/metrics`).
    Raises `StorageError` and its kinds if the data folder does not let us, `UsageError` for an address in use.
    """
    node = _placed(read_node_file(data_directory), placement)
    shard = 0 if node is None else node.shard
    add_fields(shard=shard, node=ALONE.node_id if node is None else node.node_id)
    security.check(in_group=node is not None)
    use_credentials(security.credentials())
    with ExitStack() as closing:

        def bind(address: str | None) -> list[socket.socket]:
            return [closing.enter_context(bound) for bound in (bind_address(address) if address is not None else ())]

        clients = _listen_address(node) if listen is None else listen
        sockets = _Sockets(
            clients=bind(clients),
            peers=bind(None if node is None else node.peer_address),
            echo=bind(echo),
            reader=bind((reader_listen or _any_port_beside(clients)) if reader else None),
            metrics=bind(metrics),
            reader_metrics=bind(reader_metrics if reader else None),
        )
        check_watchers(sockets.told, insecure_listen=security.insecure_listen)
        # Whether there is a token is known when the log has been read.
        check_listening(sockets.all, security, has_tokens=True)
        prepare_start(data_directory, shard)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        keep_freed_memory()
        if repairs:
            _repair(data_directory, node)
        found = None
        if node is not None and must_ask_for_group(data_directory, node, shard):
            found = uvloop.run(_until_told(join_group(node)))
            if found is None:
                return 0
        if node is not None and node.placement and not _has_map(data_directory, node.placement):
            return 0
        while _open_and_run(data_directory, node, sockets, say, settings, found=found, security=security):
            pass
    return 0


def _repair(data_directory: Path, node: NodeFile | None) -> None:
    """Cut what is damaged off the log, and say so for the record."""
    report = repair_from_group(data_directory, node, 0 if node is None else node.shard)
    if report is None:
        _log.warning("bezant: nothing is damaged, so nothing is repaired")
        return
    _log.warning(
        "bezant: %s This log is cut behind entry %d; what was behind it is set aside in %s, and %s. This node does not "
        "vote until it has the rest from the others",
        report.damage,
        report.last_index,
        shard_directory(data_directory, 0 if node is None else node.shard).path,
        ", ".join(report.set_aside) or "there was nothing",
    )


def _placed(node: NodeFile | None, placement: Sequence[str] | None) -> NodeFile | None:
    """The node file, with another place of slot maps if one was given. Raises `UsageError` where there can be none."""
    if placement is None:
        return node
    if node is None or node.shard == METADATA_SHARD:
        raise UsageError("--placement is for the nodes of shards: `bezant init` says which shard a data folder is of")
    return msgspec.structs.replace(node, placement=list(placement))


async def _until_told(work: Coroutine[Any, Any, _Found]) -> _Found | None:
    """Do what must come before the folder is opened; None if the node is told to stop before."""
    loop = asyncio.get_running_loop()
    working = asyncio.create_task(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, working.cancel)
    await asyncio.wait([working])
    return None if working.cancelled() else working.result()


def _listen_address(node: NodeFile | None) -> str:
    return LISTEN_DEFAULT if node is None else node.client_address


def _any_port_beside(address: str) -> str:
    return f"{address.rpartition(':')[0]}:0"


class _Sockets(NamedTuple):
    """Bound sockets of a node: for clients, for the other members of its group, for the echo, for its reader; and where
    it, and its reader, tell how they are."""

    clients: list[socket.socket]
    peers: list[socket.socket]
    echo: list[socket.socket]
    reader: list[socket.socket]
    metrics: list[socket.socket]
    reader_metrics: list[socket.socket]

    @property
    def all(self) -> list[socket.socket]:
        """All where there is something to be had but numbers."""
        return [*self.clients, *self.peers, *self.echo, *self.reader]

    @property
    def told(self) -> list[socket.socket]:
        """All where there are numbers alone."""
        return [*self.metrics, *self.reader_metrics]

    def copied(self) -> "_Sockets":
        """The same places for one run, which closes what it is given."""
        return _Sockets(*([bound.dup() for bound in kind] for kind in self))


class _Access(NamedTuple):
    """What the operator said of it, and whom that lets in."""

    security: NodeSecurity
    guard: Guard


def _open_and_run(
    data_directory: Path,
    node: NodeFile | None,
    sockets: _Sockets,
    say: Callable[[str], None],
    settings: ReplicaSettings | None,
    *,
    found: GroupFacts | None,
    security: NodeSecurity,
) -> bool:
    """Run the node until it is told to stop, or must open its folder again: then True."""
    log_id = 0 if found is None else found.log_id
    try:
        shard = 0 if node is None else node.shard
        member = open_member(data_directory, node, log_id=log_id, shard=shard, settings=settings)
    except CorruptLog as error:
        if node is None or len(node.members) == 1 or REPAIR_ADVICE in str(error):
            raise
        raise CorruptLog(f"{error}. {REPAIR_ADVICE}") from error
    try:
        tell_findings(member.replica)
        certified = security.has_tls and security.tls_ca != ""
        guard = Guard(member.replica.ledger.tokens, security.cluster_token(), nodes_are_certified=certified)
        check_listening(sockets.all, security, has_tokens=guard.asks_for_tokens)
        gc.freeze()
        access = _Access(security, guard)
        abandoned = uvloop.run(_serve(member, node, sockets.copied(), say, found=found, access=access))
    finally:
        member.close()
    if abandoned is None:
        return False
    _log.warning("bezant: %s: the state is made anew from the checkpoint and the log", abandoned)
    return True


async def _serve(
    member: Member,
    node: NodeFile | None,
    sockets: _Sockets,
    say: Callable[[str], None],
    *,
    found: GroupFacts | None,
    access: _Access,
) -> StateAbandoned | None:
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[StateAbandoned | None] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _settle, stopped, None)
    reactor = Reactor(member, loop)
    loop_watch = LoopWatch(loop, reactor.counters.loop)
    following = _place(reactor, node)
    links = _coordinate(reactor, [] if node is None else node.placement)
    security = access.security
    peering = None
    if node is not None:
        tls, token = security.peer_tls(), security.cluster_token()
        peering = Peering(
            reactor, node, loop, lambda error: _settle(stopped, error), found, tls=tls, cluster_token=token
        )
    reader_address = address_of(sockets.reader[0]) if sockets.reader else ""
    welcome = make_welcome(reactor, f"bezant {version('bezant')}", kernel_digest(), reader_address)
    clients = Clients(
        reactor, welcome, files_for_connections(), None if peering is None else peering.operations, access.guard
    )
    if peering is not None:
        await peering.start(sockets.peers)
    servers = await listen_on(loop, lambda: Connection(clients), sockets.clients, security.clients_context())
    say(f"listening on {address_of(sockets.clients[0])}")
    _log.info("bezant: listening", extra=about("listening", address=address_of(sockets.clients[0])))
    if sockets.echo:
        servers += await listen_on(loop, EchoProtocol, sockets.echo)
        say(f"echo on {address_of(sockets.echo[0])}")
    watchers = Watchers(node_pages(lambda: report(reactor, clients), lambda: find_unready(reactor), loop_watch))
    servers += await _tell(watchers, sockets.metrics, say)
    following.start()
    loop_watch.start()
    reading = None
    if sockets.reader:
        node_address, metrics = address_of(sockets.clients[0]), sockets.reader_metrics
        reading = Reading(reactor, sockets.reader, reader_address, node_address, security, metrics=metrics)
        reading.start()
    abandoned = await stopped
    loop_watch.stop()
    watchers.close()
    if peering is not None and abandoned is None:
        await peering.hand_over()
    for running in servers:
        running.close()
    await following.stop()
    if abandoned is None:
        await clients.stop()
    else:
        clients.abort()
    if peering is not None:
        await peering.stop()
    if reading is not None:
        await reading.stop()
    await reactor.stop(settled=abandoned is None)
    await links.close()
    for bound in (*sockets.reader, *sockets.reader_metrics):
        bound.close()
    return abandoned


async def _tell(watchers: Watchers, sockets: list[socket.socket], say: Callable[[str], None]) -> list[Listener]:
    """Tell by HTTP how the node is, if that is wanted; returns who listens."""
    if not sockets:
        return []
    say(f"metrics on http://{address_of(sockets[0])}/metrics")
    return await listen_on(asyncio.get_running_loop(), watchers.connection, sockets)


def _has_map(data_directory: Path, places: Sequence[str]) -> bool:
    """Have a map in the folder; False if the node is told to stop before there is one."""
    return uvloop.run(_until_told(await_map(data_directory, places))) is not None


def _place(reactor: Reactor, node: NodeFile | None) -> MapFollower:
    """Have a node of one of several shards go by the map that its folder has; returns what keeps it up to date."""
    data_directory = Path(reactor.replica.checkpoints.directory.path).parent.parent
    if node is not None and node.shard == METADATA_SHARD:
        reactor.placing = Placing(METADATA_SHARD)
    elif node is not None and node.placement:
        reactor.placing = Placing(node.shard, read_map(data_directory))
    return MapFollower(reactor.placing, data_directory, [] if node is None else node.placement)


def _coordinate(reactor: Reactor, places: Sequence[str]) -> ShardLinks:
    """Have the leader of a shard carry on transfers to others; returns its links to them."""
    placing = reactor.placing
    if placing is None or placing.shard == METADATA_SHARD:
        return ShardLinks(lambda _shard: "")
    links = ShardLinks(placing.addresses_of)
    reactor.coordinator = Coordinator(reactor.member, placing, links, reactor.legs, reactor.schedule)
    reactor.moving = Moving(Around(reactor.member, placing, links, lambda: open_store(places), reactor.schedule))
    return links


def _settle(stopped: "asyncio.Future[StateAbandoned | None]", error: StateAbandoned | None) -> None:
    """Have the node stop, once, for the first reason."""
    if not stopped.done():
        stopped.set_result(error)
