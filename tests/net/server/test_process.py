"""Claim: a real node keeps what it acknowledged through any end, and its end says why it came."""

import asyncio
import contextlib
import os
import random
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from bezant.engine.replica import open_replica
from bezant.net.server import listening, open_connections
from bezant.net.server import serve as serve_module
from bezant.net.server.open_connections import CONNECTIONS_MAX
from bezant.protocol.errors import UsageError
from bezant.protocol.frames import Operation, encode_frame
from bezant.protocol.kinds import ResultFlag
from bezant.protocol.records import EVENT, EVENT_ANSWER

from .books import COMMITTED, NAMES, opening, transfers
from .node import Client
from .process import STOP_S, NodeProcess, running

CLIENTS = 6
COMMANDS_PER_FRAME = 7
FRAMES_AHEAD = 8

SERVE = """
import sys
from pathlib import Path
from bezant.engine.log.group import Group
from bezant.engine.replica import Replica
from bezant.net.server.serve import serve
from bezant.protocol.errors import LedgerError

def broken(*arguments):
    raise {error}

{patch} = broken
sys.exit(serve(Path(sys.argv[1]), "127.0.0.1:0", say=lambda line: print(line, flush=True), reader=False))
"""


class Load:
    """Clients that keep frames of transfers under way, and remember everything that they were told."""

    def __init__(self, first_id: int) -> None:
        self.next_id = first_id
        self.acknowledged: dict[int, np.void] = {}

    async def run(self, node: NodeProcess) -> None:
        """Go on until the node goes away."""
        clients = [await node.connect() for _ in range(CLIENTS)]
        await asyncio.gather(*(self._drive(client) for client in clients))

    async def _drive(self, client: Client) -> None:
        sent: dict[int, int] = {}
        with contextlib.suppress(OSError, AssertionError):  # the connection is gone, as it should be in the end
            for _ in range(FRAMES_AHEAD):
                self._send(client, sent)
            while True:
                self._note(await client.reply(), sent)
                self._send(client, sent)
        for reply in client.arrived:
            self._note(reply, sent)

    def _send(self, client: Client, sent: dict[int, int]) -> None:
        first_id, self.next_id = self.next_id, self.next_id + COMMANDS_PER_FRAME
        sent[first_id] = first_id
        client.write(encode_frame(Operation.COMMANDS, first_id, transfers(COMMANDS_PER_FRAME, first_id).tobytes()))

    def _note(self, reply, sent: dict[int, int]) -> None:
        first_id = sent.pop(reply.request_id)
        for number, result in enumerate(reply.results):
            assert (result["code"], result["flags"]) == (COMMITTED, 0)
            self.acknowledged[first_id + number] = result


async def check_acknowledged(node: NodeProcess, acknowledged: dict[int, np.void]) -> None:
    """Everything that was told is there: the same outcome in the same place, by repeating and by looking up."""
    client = await node.connect()
    identifiers = sorted(acknowledged)
    for start in range(0, len(identifiers), 1000):
        part = identifiers[start : start + 1000]
        commands = np.concatenate([transfers(1, identifier) for identifier in part])
        results = (await client.execute(commands)).copy()
        assert (results["flags"] == ResultFlag.REPEATED).all()
        results["flags"] = 0
        assert results.tobytes() == b"".join(acknowledged[identifier].tobytes() for identifier in part)
        keys = b"".join(command.tobytes()[:32] for command in commands)
        answers = np.frombuffer((await client.ask(Operation.LOOKUP_EVENTS, keys)).body, EVENT_ANSWER)
        assert answers["position"].tolist() == results["position"].tolist()
        events = np.frombuffer(answers["event"].tobytes(), EVENT)
        assert events["id_head"].tolist() == part


async def test_every_acknowledged_transfer_survives_sigkill_under_load(tmp_path: Path) -> None:
    chance = random.Random(1)
    acknowledged: dict[int, np.void] = {}
    for turn in range(4):
        async with running(tmp_path / "data") as node:
            await check_acknowledged(node, acknowledged)
            if not acknowledged:
                await (await node.connect()).execute(opening(*NAMES))
            load = Load((turn + 1) << 32)
            working = asyncio.create_task(load.run(node))
            while len(load.acknowledged) < 1500:
                await asyncio.sleep(0.002)
            await asyncio.sleep(chance.random() * 0.05)
            assert await node.end(signal.SIGKILL) == -signal.SIGKILL
            await working
            acknowledged |= load.acknowledged
    async with running(tmp_path / "data") as node:
        await check_acknowledged(node, acknowledged)
        assert await node.end(signal.SIGTERM) == 0
    replica = open_replica(tmp_path / "data")
    replica.ledger.check_invariants()
    assert replica.log.recovery.clean_stop
    replica.close()
    assert len(acknowledged) >= 4 * 1500


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_stop_under_load_tells_everybody_what_was_done(tmp_path: Path, number: signal.Signals) -> None:
    """Of what the node executed, nothing is left unanswered: results and events are as many."""
    async with running(tmp_path / "data") as node:
        await (await node.connect()).execute(opening(*NAMES))
        load = Load(1)
        working = asyncio.create_task(load.run(node))
        while len(load.acknowledged) < 2000:
            await asyncio.sleep(0.002)
        assert await node.end(number) == 0
        await working
    replica = open_replica(tmp_path / "data")
    assert replica.log.recovery.clean_stop
    assert replica.ledger.next_sequence - 1 == len(NAMES) + len(load.acknowledged)
    replica.close()


BREAKAGES = [
    ("Replica.execute", "LedgerError('time stands still')", os.EX_SOFTWARE, "LedgerError: time stands still"),
    ("Replica.finish_group", "KeyError('lost')", os.EX_SOFTWARE, "KeyError: 'lost'"),
    ("Group.write_and_sync", "OSError(5, 'Input/output error')", os.EX_IOERR, "Input/output error"),
]


async def test_a_broken_node_ends_loudly_and_loses_nothing(tmp_path: Path) -> None:
    load = Load(1 << 40)
    async with running(tmp_path / "data") as node:
        await (await node.connect()).execute(opening(*NAMES))
        working = asyncio.create_task(load.run(node))
        while len(load.acknowledged) < 100:
            await asyncio.sleep(0.002)
        assert await node.end(signal.SIGTERM) == 0
        await working
    for number, (patch, error, status, said) in enumerate(BREAKAGES):
        async with running(tmp_path / "data", SERVE.format(patch=patch, error=error)) as node:
            client, other = await node.connect(), await node.connect()
            await client.send(encode_frame(Operation.COMMANDS, 1, transfers(1, 1 + number).tobytes()))
            assert await asyncio.wait_for(node.process.wait(), STOP_S) == status
            for connection in (client, other):
                with contextlib.suppress(OSError):
                    assert await connection.rest() == []  # nothing was told that may not be so
            assert node.process.stderr is not None
            told = (await node.process.stderr.read()).decode()
            assert told.startswith("bezant: ")
            assert said in told
    async with running(tmp_path / "data") as node:
        await check_acknowledged(node, load.acknowledged)


# Addresses and limits of the system.


@pytest.mark.parametrize("address", ["", "7420", "localhost", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "::1:²"])
def test_an_address_that_is_none(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_module, "prepare_start", pytest.fail)
    with pytest.raises(UsageError, match="HOST:PORT"):
        serve_module.serve(Path("nowhere"), address, say=pytest.fail)


async def test_an_address_in_use_is_told_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiling takes long, and the folder is not even made."""
    monkeypatch.setattr(serve_module, "prepare_start", pytest.fail)
    sockets = listening.bind_address("127.0.0.1:0")
    (server,) = await listening.listen_on(asyncio.get_running_loop(), asyncio.Protocol, sockets)
    with pytest.raises(UsageError, match="cannot listen on"):
        serve_module.serve(tmp_path / "data", listening.address_of(sockets[0]), say=pytest.fail)
    assert not (tmp_path / "data").exists()
    server.close()


async def test_of_two_that_took_an_address_one_listens() -> None:
    """An address can be taken by many as long as none listens."""
    loop = asyncio.get_running_loop()
    first = listening.bind_address("127.0.0.1:0")
    second = listening.bind_address(listening.address_of(first[0]))
    (server,) = await listening.listen_on(loop, asyncio.Protocol, first)
    with pytest.raises(UsageError, match="cannot listen on"):
        await listening.listen_on(loop, asyncio.Protocol, second)
    server.close()
    for bound in second:
        bound.close()


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "connections"),
    [
        (1 << 20, 1 << 20, None, CONNECTIONS_MAX),
        (1024, 1 << 20, CONNECTIONS_MAX + 256, CONNECTIONS_MAX),
        (1024, resource.RLIM_INFINITY, CONNECTIONS_MAX + 256, CONNECTIONS_MAX),
        (1024, 1024, 1024, 768),
        (100, 200, 200, 1),
    ],
)
def test_there_are_no_more_connections_than_the_system_has_files_for(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int | None, connections: int
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))
    assert open_connections.files_for_connections() == connections
    assert set_to == ([] if raised is None else [(raised, hard)])
