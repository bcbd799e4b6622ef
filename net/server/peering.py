"""The node's part in its group: messages of the other members, in and out, and the time that passes.

The transport (`net/peers`) and the reactor know nothing of each other; they meet here.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Final, ParamSpec

from typing_extensions import Buffer

from bezant.engine.member import TICK_S, StateAbandoned
from bezant.engine.node_file import NodeFile
from bezant.engine.snapshots.transfer import StateTransfer
from bezant.net.access.tls import PeerTls
from bezant.net.logs import about
from bezant.net.peers.identity import Identity
from bezant.net.peers.transport import PeerTransport
from bezant.net.server.failure import end_after_bug, end_after_failed_sync
from bezant.net.server.group import GroupOperations
from bezant.net.server.joining import GroupFinder
from bezant.net.server.reactor import Reactor
from bezant.protocol.errors import RemoteProtocolError, UsageError
from bezant.protocol.messages import Configuration, GroupFacts, PeerHello
from bezant.protocol.records import LOG_FORMAT_VERSION, RULES_VERSION
from bezant.protocol.transfer_messages import (
    PeerMessage,
    TransferMessage,
    decode_peer_message,
    encode_peer_message,
)

TICKS_LOST_MAX: Final = 2
"""Ticks that are made up for after the loop was held up: a node that did not run has not waited in vain either."""
HAND_OVER_S_MAX: Final = 2.0
"""Seconds that a stopping leader has to find a successor."""
CLOCK_CHECK_S: Final = 1.0
CLOCK_OFFSET_NS_MAX: Final = 500_000_000
"""A leader whose clock is further than this from the median of its group's hands over."""

_Parameters = ParamSpec("_Parameters")

_log = logging.getLogger("bezant")


class Peering:
    """See the module. All methods on the loop."""

    def __init__(
        self,
        reactor: Reactor,
        node: NodeFile,
        loop: asyncio.AbstractEventLoop,
        on_abandoned: Callable[[StateAbandoned], None],
        found: GroupFacts | None = None,
        *,
        tls: PeerTls | None = None,
        cluster_token: str = "",
    ) -> None:
        """`on_abandoned` is called when this node must open its folder again, after which it takes nothing more.

        `found` is what a node that has just joined was told of the group, which its log does not say yet.
        """
        self._found = found
        self._reactor = reactor
        self._on_abandoned = on_abandoned
        self._is_abandoned = False
        self._member = reactor.member
        self._node_id = node.node_id
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._next_tick_s = loop.time()
        self._next_clock_check_s = 0.0
        self._told = (0, 0)
        self.transport: PeerTransport[PeerMessage] = PeerTransport(
            Identity(
                log_id=reactor.replica.log.public_id,
                node_id=node.node_id,
                incarnation=node.incarnation,
                log_format_version=LOG_FORMAT_VERSION,
                rules_version_max=RULES_VERSION,
                server=f"bezant {version('bezant')}",
                is_blank=lambda: self._member.is_blank,
                term=lambda: self._member.core.term,
                cluster_token=cluster_token,
            ),
            encode=encode_peer_message,
            decode=decode_peer_message,
            judge=self._judge,
            on_message=self._on_message,
            on_link=self._on_link,
            on_reset=self._on_reset,
            tls=tls,
        )
        self.operations = GroupOperations(self._member, self.transport.status)
        reactor.replica.find_unready = self.operations.find_unready
        self._finder = GroupFinder(node, self._member, self._on_found)
        self._member.send = self._send
        self._member.on_configuration = self._on_configuration
        reactor.flush_messages = self.transport.flush
        self._transfer = StateTransfer(self._member, lambda problem: _log.warning("bezant: %s", problem))

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Talk to the other members, and let time pass."""
        self._on_configuration(self._member.configuration)
        await self.transport.listen(sockets)
        self._next_tick_s = self._loop.time()
        self._on_timer()

    async def hand_over(self) -> None:
        """Give the leadership to another member, if this node has it and another can take it within HAND_OVER_S_MAX."""
        member = self._member
        until_s = self._loop.time() + HAND_OVER_S_MAX
        while member.is_leader and self._has_successor() and self._loop.time() < until_s:
            if not member.is_handing_over:
                try:
                    member.transfer_leadership()
                except UsageError:
                    return  # There is no other voter that could lead.
            await asyncio.sleep(TICK_S)

    def _has_successor(self) -> bool:
        """Whether another voter is connected: the last node of a group that is stopped waits for nobody."""
        voters = self._member.configuration.voters
        return any(node_id != self._node_id and self.transport.is_up(node_id) for node_id in voters)

    async def stop(self) -> None:
        """Say and hear nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._member.send = _say_nothing
        self._transfer.close()
        await self._finder.stop()
        await self.transport.stop()

    # ---- time ----

    def _on_timer(self) -> None:
        now_s = self._loop.time()
        self._next_tick_s = max(self._next_tick_s, now_s - TICKS_LOST_MAX * TICK_S)
        while self._next_tick_s <= now_s:
            self._next_tick_s += TICK_S
            if not self._is_abandoned:
                self._reactor.on_tick()
                self._guard(self._transfer.on_tick)
        self.operations.on_step()
        self._tell_leader()
        if now_s >= self._next_clock_check_s:
            self._next_clock_check_s = now_s + CLOCK_CHECK_S
            self._check_clock()
        self._finder.on_time(now_s)
        self._timer = self._loop.call_at(self._next_tick_s, self._on_timer)

    def _tell_leader(self) -> None:
        """Write down who leads, when that has changed."""
        found = self._member.term, self._member.leader_id
        if found != self._told:
            self._told = found
            term, leader = found
            words = f"node {leader} leads" if leader else "no leader is known"
            _log.info("bezant: %s in term %d", words, term, extra=about("leader_changed", leader=leader, term=term))

    def _check_clock(self) -> None:
        """Have a leader hand over whose clock, which stamps all events, is further off than CLOCK_OFFSET_NS_MAX."""
        member = self._member
        if not member.is_leader or member.is_alone or member.is_handing_over:
            return
        offsets = [self.transport.clock_offset_ns(other.node_id) for other in member.configuration.members]
        known = sorted([0, *(offset for offset in offsets if offset is not None)])
        median_ns = known[len(known) // 2]
        if len(known) > len(member.configuration.voters) // 2 + 1 and abs(median_ns) > CLOCK_OFFSET_NS_MAX:
            _log.warning(
                "bezant: the clock of this node is %d ms off the others': it hands over its leadership. Set the clock",
                -median_ns // 1_000_000,
            )
            try:
                member.transfer_leadership()
            except UsageError as error:
                _log.warning("bezant: and cannot: %s", error)

    # ---- messages ----

    def _send(self, message: PeerMessage, buffers: Sequence[Buffer]) -> None:
        self.transport.send(message.receiver, message, buffers)

    def _on_message(self, sender: int, message: PeerMessage, payload: memoryview) -> None:
        if message.sender != sender:
            raise RemoteProtocolError(f"node {sender} sent a message of node {message.sender}")
        if self._is_abandoned:
            return
        if isinstance(message, TransferMessage):
            self._guard(self._transfer.on_message, message, payload)
        else:
            self._guard(self._reactor.on_message, message, payload)

    def _guard(self, step: Callable[_Parameters, None], *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> None:
        """Do something, and what its failure leads to."""
        try:
            step(*args, **kwargs)
        except RemoteProtocolError:
            raise
        except StateAbandoned as abandoned:
            self._is_abandoned = True
            self._on_abandoned(abandoned)
        except OSError as error:
            end_after_failed_sync(error)
        except Exception as error:
            end_after_bug(error)

    def _on_link(self, node_id: int, is_up: bool) -> None:
        if not is_up and not self._is_abandoned:
            self._member.unreachable(node_id)

    def _on_reset(self, node_id: int) -> None:
        if node_id == self._member.leader_id and not self._is_abandoned:
            self._member.leader_lost()

    def _on_configuration(self, configuration: Configuration) -> None:
        """Talk to the members of the configuration in force and, while a later one is only heard of, to those of it."""
        members = {member.node_id: member for member in configuration.members}
        if self._found is not None and self._found.index > self._member.core.configuration_index:
            members.update((member.node_id, member) for member in self._found.configuration.members)
        self.transport.set_members(
            {node_id: member.peer_address for node_id, member in members.items()},
            {node_id: member.incarnation for node_id, member in members.items()},
        )

    def _on_found(self, facts: GroupFacts) -> None:
        """Another node knows of a configuration that may be later than any here."""
        if facts.log_id != self._reactor.replica.log.log_id:
            _log.warning("bezant: the node that was asked for the group belongs to another one")
        elif self._found is None or facts.index > self._found.index:
            self._found = facts
            self._on_configuration(self._member.configuration)

    def _judge(self, hello: PeerHello) -> str | None:
        """Who is a member, and with which disk, the transport knows; nothing else is against anyone."""
        if hello.blank and not self._is_abandoned:
            self._guard(self._member.note_blank, hello.node_id, hello.term)
        return None


def _say_nothing(message: PeerMessage, buffers: Sequence[Buffer]) -> None:
    """A node that stops says nothing any more."""
