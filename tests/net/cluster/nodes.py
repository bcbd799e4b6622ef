"""A group of real nodes, each in a process of its own, and what tests ask of it."""

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import bezant
from bezant.cli.node_process import NodeProcess
from bezant.cli.ports import free_addresses
from bezant.engine.node_file import joining_node, new_cluster_id, new_group_node, write_node_file
from bezant.net.client.members import change_members, read_members
from bezant.protocol.errors import BezantError
from bezant.protocol.messages import ChangeMembers, MembersChanged, MembersStatus, MemberStatus

SERVE = """
import sys
from bezant.cli.main import main
sys.exit(main())
"""
WAIT_S = 60.0
"""Seconds that a busy machine is given for what takes a few, such as to start three nodes."""
LEADER_S = 5.0
"""Seconds that a group may take to have a leader once all its nodes are up; generous, because machines are busy."""
STATUS_S = 10.0
"""Seconds that a node may take to say how the group is."""


class Nodes:
    """Nodes by number. `close` leaves none of them running.

    They have readers only if told so: to start one takes longer than to start a node.
    """

    def __init__(self, folder: Path, count: int = 3) -> None:
        self.folder = folder
        self.have_readers = False
        self.running: dict[int, NodeProcess] = {}
        self._closing = ExitStack()
        addresses = free_addresses(2 * count)
        self.places = {number: (addresses.pop(), addresses.pop()) for number in range(1, count + 1)}
        self.cluster_id = new_cluster_id()
        for number in self.places:
            self.init(number)

    @property
    def addresses(self) -> list[str]:
        return [client for _, client in self.places.values()]

    def data(self, number: int) -> Path:
        return self.folder / f"node-{number}"

    def log(self, number: int) -> str:
        """All that a node wrote."""
        return (self.folder / f"node-{number}.log").read_text()

    def init(self, number: int) -> None:
        """As `bezant init --members` does."""
        write_node_file(self.data(number), new_group_node(self.cluster_id, number, self.places))

    def init_joining(self, number: int) -> None:
        """As `bezant init --join` does."""
        others = [client for other, (_, client) in self.places.items() if other != number]
        peer, client = self.places.setdefault(number, tuple(free_addresses(2)))
        write_node_file(self.data(number), joining_node(number, others, peer_address=peer, client_address=client))

    def start(self, *numbers: int, arguments: tuple[str, ...] = (), program: str = "") -> None:
        """Start these nodes, or all first members; `program` is what a changed Bezant does first."""
        start = ("-c", program + SERVE) if program else ("-m", "bezant")
        command = (sys.executable, *start, "serve", *(() if self.have_readers else ("--no-reader",)))
        for number in numbers or self.places:
            node = NodeProcess(
                self.data(number),
                log_path=self.folder / f"node-{number}.log",
                listen=None,
                name=f"node {number}",
                arguments=("--segment-size-mib", "8", "--ids-memory-mib", "64", *arguments),
                command=command,
            )
            self._closing.callback(node.end)
            self.running[number] = node
            node.start()

    async def ready(self, *numbers: int) -> None:
        for number in numbers or self.running:
            await self.running[number].ready(WAIT_S)

    async def stop(self, number: int) -> None:
        await self.running.pop(number).stop()

    def kill(self, number: int) -> None:
        self.running.pop(number).kill()

    async def status(self, *numbers: int) -> MembersStatus:
        """What the group, or one of these nodes, says of itself."""
        return await read_members([self.places[number][1] for number in numbers or self.running], STATUS_S)

    async def await_status(self, is_so: Callable[[MembersStatus], bool], timeout_s: float = WAIT_S) -> MembersStatus:
        """The first status of which this is true."""
        deadline_s, told = time.monotonic() + timeout_s, "nothing"
        while time.monotonic() < deadline_s:
            try:
                status = await self.status()
            except BezantError as error:
                told = str(error)
            else:
                if is_so(status):
                    return status
                told = str(status)
            await asyncio.sleep(0.02)
        raise AssertionError(f"not within {timeout_s} s; at last: {told}")

    async def await_log(self, number: int, text: str, timeout_s: float = WAIT_S) -> None:
        """Return when a node has written this."""
        deadline_s = time.monotonic() + timeout_s
        while text not in self.log(number):
            if time.monotonic() > deadline_s:
                raise AssertionError(f"node {number} did not write {text!r} within {timeout_s} s: {self.log(number)}")
            await asyncio.sleep(0.02)

    async def leader(self, timeout_s: float = WAIT_S) -> int:
        """The node that leads, as it says itself."""
        return (await self.await_status(lambda status: status.leader == status.node_id, timeout_s)).leader

    async def leader_but(self, number: int, other: int) -> int:
        """The node that leads, which is not to be this one: should a stall have made it lead, another takes over."""
        leader = await self.leader()
        if leader != number:
            return leader
        await self.change("transfer", other)
        return other

    async def change(self, action: str, number: int, timeout_s: float = WAIT_S, **fields: object) -> MembersChanged:
        change = ChangeMembers(action, number, **fields)  # type: ignore[arg-type]
        return await change_members([self.places[node][1] for node in self.running], change, timeout_s)

    def connect(self, timeout_s: float = WAIT_S) -> "bezant.Connecting":
        return bezant.connect(",".join(self.places[number][1] for number in self.running), timeout_s=timeout_s)

    async def run_to_the_end(self, number: int) -> int:
        """Start a node that does not get so far as to listen; returns its exit status."""
        self.start(number)
        node = self.running.pop(number)
        deadline_s = time.monotonic() + WAIT_S
        while not node.ended:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.02)
        return int(node.status or 0)

    def close(self) -> None:
        self._closing.close()


async def open_books(wallet: "bezant.Wallet") -> None:
    """Two accounts that `move` moves money between."""
    await wallet.open_account("wallet:ann", "EUR", limit=bezant.UNLIMITED)
    await wallet.open_account("wallet:bob", "EUR")


async def move(wallet: "bezant.Wallet") -> None:
    """A transfer that must be committed."""
    assert (await wallet.transfer("wallet:ann", "wallet:bob", "1.00", "EUR")).committed


def member_of(status: MembersStatus, number: int) -> MemberStatus | None:
    return next((member for member in status.members if member.node_id == number), None)
