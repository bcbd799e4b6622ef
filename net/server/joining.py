"""How a node finds its group: the operation JOIN, asked of any node at its address for clients.

A blank disk that joins a group begins with it, and has itself taken in as a learner. So does a node that hears no
leader for a while: since it was last there, all whom it knows may have left, and it would let none of the others in.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from typing import Final

from bezant.engine.member import Member
from bezant.engine.node_file import NodeFile
from bezant.net.client.members import ask_node, change_members
from bezant.protocol.errors import BezantError, ConnectionFailed
from bezant.protocol.frames import Operation
from bezant.protocol.messages import ChangeMembers, GroupFacts, decode_message, encode_message
from bezant.protocol.messages import Member as MemberRecord

ASK_TIMEOUT_S: Final = 2.0
"""Seconds that one node has to say what the group is."""
ADD_TIMEOUT_S: Final = 10.0
"""Seconds that the group has to take a node in, before it is asked again."""
BACKOFF_S_MIN: Final = 0.25
BACKOFF_S_MAX: Final = 5.0
"""Seconds between attempts to be taken in: doubled each time, less up to half of it by chance."""
LEADERLESS_S: Final = 2.0
"""Seconds without a leader after which a node asks who belongs to the group; several elections take less."""

_log = logging.getLogger("bezant")


async def ask_for_group(addresses: Iterable[str], record: MemberRecord) -> GroupFacts:
    """What the first of these nodes that knows this one says of the group. Raises what the last failed with."""
    failure: BezantError = ConnectionFailed("no address of the group is known")
    body = encode_message(record)
    for address in addresses:
        try:
            return decode_message(await ask_node(address, Operation.JOIN, body, ASK_TIMEOUT_S), GroupFacts)
        except BezantError as error:
            failure = error
    raise failure


async def join_group(node: NodeFile) -> GroupFacts:
    """Have the group take a blank disk in, as a learner; tries until it has, and says what is in the way."""
    add = ChangeMembers("add", node.node_id, node.incarnation, node.peer_address, node.client_address)
    told, backoff_s = "", BACKOFF_S_MIN
    while True:
        try:
            await change_members(node.join, add, ADD_TIMEOUT_S)
            return await ask_for_group(node.join, node.member)
        except BezantError as error:
            if str(error) != told:
                told = str(error)
                _log.warning("bezant: node %d waits to be let into its group: %s", node.node_id, told)
        await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
        backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)


class GroupFinder:
    """Asks who belongs to the group while no leader is heard. All methods on the loop."""

    def __init__(self, node: NodeFile, member: Member, on_found: Callable[[GroupFacts], None]) -> None:
        self._node = node
        self._member = member
        self._on_found = on_found
        self._leaderless_s: float | None = None
        self._asking: asyncio.Task[None] | None = None

    def on_time(self, now_s: float) -> None:
        """Ask, if it is time to."""
        if self._member.leader_id or self._member.is_alone:
            self._leaderless_s = None
        elif self._leaderless_s is None:
            self._leaderless_s = now_s
        elif now_s - self._leaderless_s >= LEADERLESS_S and self._asking is None:
            self._leaderless_s = now_s
            self._asking = asyncio.create_task(self._ask(), name="bezant: asks for its group")

    async def _ask(self) -> None:
        known = [member.client_address for member in self._member.configuration.members]
        own = self._node.client_address
        addresses = [address for address in dict.fromkeys(known + self._node.join) if address and address != own]
        try:
            facts = await ask_for_group(addresses, self._node.member)
        except BezantError as error:
            _log.debug("bezant: nobody says who belongs to the group: %s", error)
        else:
            self._on_found(facts)
        finally:
            self._asking = None

    async def stop(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
