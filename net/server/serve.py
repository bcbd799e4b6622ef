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
from bezant.net.server.clients import Clients, make_welcome
from bezant.net.server.connection import Connection
from bezant.net.server.echo import EchoProtocol
from bezant.net.server.joining import join_group
from bezant.net.server.listening import address_of, bind_address, listen_on
from bezant.net.server.open_connections import files_for_connections
from bezant.net.server.peering import Peering
from bezant.net.server.reactor import Reactor
from bezant.net.server.reading import Reading
from bezant.net.server.starting import prepare_start, tell_findings
from bezant.protocol.errors import CorruptLog
from bezant.protocol.messages import GroupFacts

LISTEN_DEFAULT: Final = "127.0.0.1:7420"
SWITCH_INTERVAL_S: Final = 0.0005
"""How soon the sync thread gets the interpreter's lock back when the loop is busy."""

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
) -> int:
    """Run a node; returns the exit status. `say` gets a line when it listens, and one for the echo port if asked for.

    `repairs`: cut a damaged log before the damage first, and get the rest from the other members of the group.
    Without `listen` clients connect where the node file says, if there is one, else at LISTEN_DEFAULT. A child
    process is the node's `reader`, unless there is to be none, at `reader_listen` or any free port of the same host.
    Raises `StorageError` and its kinds if the data folder does not let us, `UsageError` for an address in use.
    """
    node = read_node_file(data_directory)
    with ExitStack() as closing:

        def bind(address: str | None) -> list[socket.socket]:
            return [closing.enter_context(bound) for bound in (bind_address(address) if address is not None else ())]

        clients = _listen_address(node) if listen is None else listen
        sockets = _Sockets(
            clients=bind(clients),
            peers=bind(None if node is None else node.peer_address),
            echo=bind(echo),
            reader=bind((reader_listen or _any_port_beside(clients)) if reader else None),
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


def _any_port_beside(address: str) -> str:
    return f"{address.rpartition(':')[0]}:0"


class _Sockets(NamedTuple):
    """Bound sockets of a node: for clients, for the other members of its group, for the echo, for its reader."""

    clients: list[socket.socket]
    peers: list[socket.socket]
    echo: list[socket.socket]
    reader: list[socket.socket]

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
    reader_address = address_of(sockets.reader[0]) if sockets.reader else ""
    welcome = make_welcome(reactor, f"bezant {version('bezant')}", kernel_digest(), reader_address)
    clients = Clients(reactor, welcome, files_for_connections(), None if peering is None else peering.operations)
    if peering is not None:
        await peering.start(sockets.peers)
    servers = await listen_on(loop, lambda: Connection(clients), sockets.clients)
    say(f"listening on {address_of(sockets.clients[0])}")
    if sockets.echo:
        servers += await listen_on(loop, EchoProtocol, sockets.echo)
        say(f"echo on {address_of(sockets.echo[0])}")
    reading = Reading(reactor, sockets.reader, reader_address) if sockets.reader else None
    if reading is not None:
        reading.start()
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
    if reading is not None:
        await reading.stop()
    await reactor.stop(settled=abandoned is None)
    for bound in sockets.reader:
        bound.close()
    return abandoned


def _settle(stopped: "asyncio.Future[StateAbandoned | None]", error: StateAbandoned | None) -> None:
    """Have the node stop, once, for the first reason."""
    if not stopped.done():
        stopped.set_result(error)
