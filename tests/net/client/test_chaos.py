"""Claim: whatever the network does, a result that is not unknown is the truth, and nothing is executed twice."""

import asyncio
import random

import msgspec
import numpy as np
import pytest

import bezant
from bezant.protocol.codes import ResultCode
from bezant.protocol.frames import FRAME_HEADER_SIZE, FrameError, Operation
from bezant.protocol.records import COMMAND_SIZE, RESULT, Records, id_bytes

from .group import Group
from .scripted import WELCOME, Handler, ScriptedServer, Seen

CALLERS = 40
TRANSFERS_PER_CALLER = 15
TIMEOUT_S = 0.4


class Node:
    """Executes each id once and, at random, loses, cuts, delays or refuses what it should answer."""

    def __init__(self, server: ScriptedServer, seed: int) -> None:
        self.server = server
        self.chance = random.Random(seed)
        self.positions: dict[bytes, int] = {}
        self.executed_count = 0

    def execute(self, commands: Records) -> Records:
        results = np.zeros(len(commands), RESULT)
        for result, command in zip(results, commands, strict=True):
            identifier = id_bytes(command["id_head"], command["id_tail"])
            if identifier not in self.positions:
                self.executed_count += 1
                self.positions[identifier] = self.executed_count
            else:
                result["flags"] = 1
            result["position"] = self.positions[identifier]
        return results

    async def handle(self, seen: Seen) -> None:
        """Do one of the things that happen."""
        event = self.chance.choice(
            ["answer"] * 4 + ["lose", "lose answer", "cut", "pieces", "refuse", "too late", "slow"]
        )
        if event == "lose":
            seen.peer.drop()
            return
        if event == "refuse":
            await seen.peer.refuse(seen, FrameError.OVERLOADED)
            return
        if event == "too late":
            results = np.zeros(len(seen.commands), RESULT)
            results["code"] = ResultCode.DEADLINE_PASSED
            await seen.peer.reply(seen, results.tobytes())
            return
        frame = seen.peer.reply_frame(seen, self.execute(seen.commands).tobytes())
        match event:
            case "lose answer":
                seen.peer.drop()
            case "cut":
                await seen.peer.send(frame[: self.chance.randrange(len(frame))])
                seen.peer.drop()
            case "pieces":
                for start in range(0, len(frame), 100):
                    await seen.peer.send(frame[start : start + 100])
                    await asyncio.sleep(0)
            case "slow":
                await asyncio.sleep(self.chance.uniform(0, TIMEOUT_S / 4))
                await seen.peer.send(frame)
            case _:
                await seen.peer.send(frame)


@pytest.mark.parametrize("seed", range(6))
async def test_known_outcomes_are_true_and_nothing_happens_twice(server: ScriptedServer, seed: int) -> None:
    bytes_in_flight_max = 3 * (FRAME_HEADER_SIZE + CALLERS * COMMAND_SIZE)
    server.welcome = msgspec.structs.replace(WELCOME, connection_bytes_in_flight_max=bytes_in_flight_max)
    node = Node(server, seed)
    server.handlers[Operation.COMMANDS] = node.handle
    outcomes: list[bezant.Result] = []

    async def caller(wallet: bezant.Wallet) -> None:
        for _ in range(TRANSFERS_PER_CALLER):
            outcomes.append(await wallet.transfer("a", "b", "1", "EUR"))
            await asyncio.sleep(0)

    async with bezant.connect(server.address, timeout_s=TIMEOUT_S) as wallet:
        await asyncio.gather(*(caller(wallet) for _ in range(CALLERS)))
    assert len(outcomes) == CALLERS * TRANSFERS_PER_CALLER
    check_outcomes(node, outcomes, seed)


def check_outcomes(node: Node, outcomes: list[bezant.Result], seed: int) -> None:
    """What is said to be committed is so, and what is said to be rejected never happened."""
    for outcome in outcomes:
        if outcome.outcome is bezant.Outcome.COMMITTED:
            assert node.positions[outcome.id] == outcome.position
        elif outcome.outcome is bezant.Outcome.REJECTED:
            assert outcome.id not in node.positions, f"seed {seed}: {outcome} was executed"
    assert node.executed_count == len(node.positions)
    assert any(outcome.committed for outcome in outcomes)


@pytest.mark.parametrize("seed", range(4))
async def test_so_are_those_of_a_group_while_the_lead_moves(group: Group, seed: int) -> None:
    """Every node does what a single one does at random, and now and then another leads, known to all or not."""
    ledger = Node(group.nodes[0], seed)
    chance = random.Random(-1 - seed)

    def move() -> None:
        group.lead(chance.randrange(3))
        group.believe([chance.choice([group.leader, group.leader, 0, 1, 2, None]) for _ in group.nodes])

    def handler(number: int) -> Handler:
        async def handle(seen: Seen) -> None:
            event = chance.choice(["normal"] * 6 + ["move", "unknown", "unknown and executed"])
            if event == "normal" and not group.refuses(number, seen):
                await ledger.handle(seen)
                return
            if event == "unknown and executed" and not group.refuses(number, seen):
                ledger.execute(seen.commands)
            move()
            if event.startswith("unknown"):
                await seen.peer.refuse(seen, FrameError.OUTCOME_UNKNOWN, leader=group.nodes[number].welcome.leader)
            else:
                await seen.peer.refuse(seen, FrameError.NOT_LEADER, leader=group.nodes[number].welcome.leader)

        return handle

    for number, node in enumerate(group.nodes):
        node.handlers[Operation.COMMANDS] = handler(number)
    outcomes: list[bezant.Result] = []

    async def caller(wallet: bezant.Wallet) -> None:
        for _ in range(TRANSFERS_PER_CALLER):
            outcomes.append(await wallet.transfer("a", "b", "1", "EUR"))
            await asyncio.sleep(0)

    async with bezant.connect(group.text, timeout_s=TIMEOUT_S) as wallet:
        await asyncio.gather(*(caller(wallet) for _ in range(CALLERS)))
    assert len(outcomes) == CALLERS * TRANSFERS_PER_CALLER
    check_outcomes(ledger, outcomes, seed)
