"""Looks at all nodes of a ledger, again and again, to see how each is: for operators, and pages that show it.

From some nodes that are named all others are found: by the members of their groups, and by the slot map. Each is asked
on a connection of its own, which is made anew when it is gone; who does not answer in time is told of as well.
"""

import asyncio
from typing import Final, NamedTuple

from bezant.net.access.credentials import Credentials
from bezant.net.client.link import Link, dial
from bezant.net.client.route import parse_addresses
from bezant.net.client.subscription import reader_address
from bezant.protocol.errors import BezantError, ConnectionFailed, RemoteProtocolError, RequestRefused, RequestTimedOut
from bezant.protocol.frames import FrameHeader, Operation, encode_frame
from bezant.protocol.messages import ErrorMessage, MembersStatus, Welcome, decode_message
from bezant.protocol.placement import METADATA_SHARD, SlotMap
from bezant.protocol.statistics import ReaderStatistics, Statistics

NODES_WATCHED_MAX: Final = 512
"""Nodes that are looked at, at most; further ones are passed over."""


class Look(NamedTuple):
    """How a node is, or why it is not known: then there are no `statistics`.

    ``shard`` and ``node_id`` are None where nobody has told yet. ``at_s``: when it answered, on the monotonic clock.
    """

    address: str
    shard: int | None
    node_id: int | None
    at_s: float
    statistics: Statistics | None
    problem: str = ""
    log_id: str = ""
    server: str = ""
    reader: str = ""
    """Where its reader is, as it tells; "" if it has none."""
    reader_statistics: ReaderStatistics | None = None
    reader_problem: str = ""


class _Told(NamedTuple):
    """What a node and its reader told, or why not."""

    statistics: Statistics | None
    problem: str = ""
    reader: ReaderStatistics | None = None
    reader_problem: str = ""


class WatchedNode:
    """One node, asked one question at a time."""

    def __init__(self, address: str, credentials: Credentials | None = None) -> None:
        self.address = address
        self.welcome: Welcome | None = None
        self._credentials = credentials
        self._link: Link | None = None
        self._reply: asyncio.Future[tuple[FrameHeader, bytes]] | None = None
        self._request_id = 0
        self._lock = asyncio.Lock()

    async def ask(self, operation: Operation, timeout_s: float) -> bytes:
        """The body of the reply to an operation without one. Raises `ConnectionFailed`, `RequestTimedOut`,
        `RequestRefused`, `RemoteProtocolError`; `UsageError` for an address that is none."""
        async with self._lock:
            try:
                async with asyncio.timeout(timeout_s):
                    return await self._ask(operation, timeout_s)
            except TimeoutError:
                self.close()
                raise RequestTimedOut(f"the node at {self.address} did not answer within {timeout_s:g} s") from None

    async def _ask(self, operation: Operation, timeout_s: float) -> bytes:
        if self._link is None or self._link.has_ended:
            link = Link(self._on_frame, _nothing, self._on_end)
            self._link = link
            self.welcome = await dial(link, self.address, timeout_s, self._credentials)
        self._request_id += 1
        self._reply = asyncio.get_running_loop().create_future()
        self._link.write(encode_frame(operation, self._request_id, b""))
        header, body = await self._reply
        if header.operation == Operation.ERROR:
            error = decode_message(body, ErrorMessage)
            raise RequestRefused(error.code, error.message)
        if header.operation != operation:
            raise RemoteProtocolError(f"operation {operation} was answered with {header.operation}")
        return body

    def _on_frame(self, header: FrameHeader, body: memoryview) -> None:
        if self._reply is not None and not self._reply.done() and header.request_id in (0, self._request_id):
            self._reply.set_result((header, bytes(body)))

    def _on_end(self, link: Link, error: BezantError) -> None:
        if link is self._link and self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)
            self._reply.exception()  # Whoever waits sees it; nobody does when the question has been given up.

    def close(self) -> None:
        """Leave the node; it may be asked again."""
        if self._link is not None:
            self._link.end(ConnectionFailed("the node is not watched any more"))
            self._link = None


class ClusterWatch:
    """See the module. One look at a time."""

    def __init__(self, addresses: str, credentials: Credentials | None = None) -> None:
        """`addresses`: some nodes, "host:port,host:port"."""
        self._seeds = tuple(parse_addresses(addresses))
        self._credentials = credentials
        self._nodes: dict[str, WatchedNode] = {}
        self._readers: dict[str, WatchedNode] = {}
        """By the address of their node."""
        self._named: dict[int, dict[str, int | None]] = {}
        """By shard, the addresses of its nodes, and their numbers."""
        self._map_version = 0

    async def look(self, timeout_s: float) -> list[Look]:
        """How every node is that is known, by shard and number; those that do not answer within `timeout_s` too."""
        loop = asyncio.get_running_loop()
        known = {address: (shard, number) for shard, named in self._named.items() for address, number in named.items()}
        for address in (*known, *self._seeds):
            if address not in self._nodes and len(self._nodes) < NODES_WATCHED_MAX:
                self._nodes[address] = WatchedNode(address, self._credentials)
        nodes = list(self._nodes.values())
        answers = await asyncio.gather(*(self._look_at(node, timeout_s) for node in nodes))
        now_s = loop.time()
        looks: dict[tuple[object, ...], Look] = {}
        for node, told in zip(nodes, answers, strict=True):
            statistics, problem = told.statistics, told.problem
            shard, number = known.get(node.address, (None, None))
            if statistics is None or node.welcome is None:
                looks.setdefault((node.address,), Look(node.address, shard, number, now_s, None, problem))
                continue
            welcome, key = node.welcome, (node.welcome.log_id, statistics.node_id)
            look = Look(
                *(node.address, statistics.shard, statistics.node_id, now_s, statistics, problem),
                *(welcome.log_id, welcome.server, welcome.reader, told.reader, told.reader_problem),
            )
            if key not in looks or node.address in known:  # A node may be named by another address, too.
                looks[key] = look
        self._forget()
        return sorted(looks.values(), key=_order)

    async def _look_at(self, node: WatchedNode, timeout_s: float) -> _Told:
        """What a node tells, and its reader, or why not; and take notice of the other nodes that it knows."""
        try:
            statistics = decode_message(await node.ask(Operation.STATISTICS, timeout_s), Statistics)
            members = decode_message(await node.ask(Operation.MEMBERS, timeout_s), MembersStatus)
            await self._learn(node, statistics, members, timeout_s)
        except BezantError as error:
            return _Told(None, str(error))
        problem = members.problem or statistics.unready
        return _Told(statistics, problem, *await self._look_at_reader(node, timeout_s))

    async def _look_at_reader(self, node: WatchedNode, timeout_s: float) -> tuple[ReaderStatistics | None, str]:
        """What the reader of a node tells, or why not."""
        told = "" if node.welcome is None else node.welcome.reader
        if not told:
            return None, ""
        address = reader_address(told, node.address)
        reader = self._readers.get(node.address)
        if reader is None or reader.address != address:
            if reader is not None:
                reader.close()
            reader = self._readers[node.address] = WatchedNode(address, self._credentials)
        try:
            answer = decode_message(await reader.ask(Operation.STATISTICS, timeout_s), ReaderStatistics)
        except BezantError as error:
            return None, str(error)
        return answer, answer.unready

    async def _learn(self, node: WatchedNode, statistics: Statistics, members: MembersStatus, timeout_s: float) -> None:
        """Take notice of the members of a node's group, as its leader has them, and of other shards."""
        shard = statistics.shard
        told = {member.client_address: member.node_id for member in members.members if member.client_address}
        if shard not in self._named or members.leader == members.node_id:
            self._named[shard] = dict(told) or {node.address: statistics.node_id}
        welcome = node.welcome
        if welcome is None or not (welcome.map_version or shard == METADATA_SHARD):
            return
        try:
            slot_map = decode_message(await node.ask(Operation.MAP, timeout_s), SlotMap)
        except RequestRefused:
            return  # It has no map yet.
        if slot_map.version <= self._map_version:
            return
        self._map_version = slot_map.version
        places = {place.shard: place.addresses for place in slot_map.shards}
        for gone in self._named.keys() - places.keys() - {METADATA_SHARD, shard}:
            del self._named[gone]
        for other, addresses in places.items():
            self._named.setdefault(other, dict.fromkeys(addresses))

    def show(self, credentials: Credentials) -> None:
        """Show something else to the nodes from now on."""
        self._credentials = credentials
        self.close()
        self._nodes.clear()
        self._readers.clear()

    def _forget(self) -> None:
        """Leave nodes that nobody names any more."""
        wanted = {address for named in self._named.values() for address in named}.union(self._seeds)
        for address in [address for address in self._nodes if address not in wanted]:
            self._nodes.pop(address).close()
            reader = self._readers.pop(address, None)
            if reader is not None:
                reader.close()

    def close(self) -> None:
        """Leave all nodes."""
        for node in (*self._nodes.values(), *self._readers.values()):
            node.close()


def _order(look: Look) -> tuple[bool, int, int, str]:
    return look.shard is None, look.shard or 0, look.node_id or 0, look.address


def _nothing(*_event: object) -> None:
    """Questions are small: nobody waits until more can be written."""
