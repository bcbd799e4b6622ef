"""The clients of a node: their connections, and what a client is told of the node."""

import time

import msgspec

from bezant.net.access.guard import Guard
from bezant.net.server.group import GroupOperations, addresses_of
from bezant.net.server.guarding import Guarding
from bezant.net.server.open_connections import CONNECTIONS_MAX, OpenConnections
from bezant.net.server.reactor import CONNECTION_BYTES_IN_FLIGHT_MAX, Reactor
from bezant.protocol.frames import BATCH_COUNT_MAX, FRAME_SIZE_MAX, PROTOCOL_VERSION
from bezant.protocol.messages import Welcome


class Clients(OpenConnections):
    """See the module."""

    def __init__(
        self,
        reactor: Reactor,
        welcome: Welcome,
        connections_max: int = CONNECTIONS_MAX,
        group: GroupOperations | None = None,
        guard: Guard | None = None,
    ) -> None:
        super().__init__(connections_max, guard or Guard(reactor.replica.ledger.tokens))
        self.reactor = reactor
        self.guarding = reactor.guarding = Guarding(
            reactor.member, self.guard, reactor.schedule, lambda: reactor.placing is not None
        )
        reactor.replica.has_cluster_token = self.guard.has_cluster_token
        self.group = group or GroupOperations(reactor.member, list)
        self._welcome = welcome

    def welcome(self) -> Welcome:
        """What a client is told now."""
        member, placing = self.reactor.member, self.reactor.placing
        map_version = 0 if placing is None else placing.map_version
        if member.is_alone:
            return msgspec.structs.replace(self._welcome, clock_ns=time.time_ns(), map_version=map_version)
        return msgspec.structs.replace(
            self._welcome,
            clock_ns=time.time_ns(),
            map_version=map_version,
            node_id=member.identity.node_id,
            leader=member.leader_address,
            members=addresses_of(member.configuration),
        )

    def _note_count(self) -> None:
        self.reactor.counters.connections = self.count

    async def stop(self) -> None:
        """End every connection, once what came in is answered."""
        await self.end_all(self.reactor.wait_idle)


def make_welcome(reactor: Reactor, server: str, kernel_digest: str, reader: str = "") -> Welcome:
    """What a node tells every client; `clock_ns` is set for each. `reader`: where its reader is, "" if it has none."""
    return Welcome(
        server=server,
        protocol_version=PROTOCOL_VERSION,
        log_id=reactor.replica.log.public_id,
        shard=reactor.replica.shard,
        rules_version=reactor.replica.ledger.rules_version,
        kernel_digest=kernel_digest,
        frame_size_max=FRAME_SIZE_MAX,
        batch_count_max=BATCH_COUNT_MAX,
        connection_bytes_in_flight_max=CONNECTION_BYTES_IN_FLIGHT_MAX,
        clock_ns=0,
        reader=reader,
    )
