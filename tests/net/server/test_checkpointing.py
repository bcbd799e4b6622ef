"""Claim: checkpoints are made beside the traffic, and whatever becomes of the one who makes them, nothing is lost."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import msgspec
import numpy as np
import pytest

from bezant.net.server import checkpointing as checkpointing_module
from bezant.net.server.checkpointing import Checkpointing
from bezant.protocol.codes import ResultCode
from bezant.protocol.frames import Operation
from bezant.protocol.kinds import ResultFlag
from bezant.protocol.records import Records

from .books import COMMITTED, NAMES, opening, transfers
from .node import LARGE_SETTINGS, Client, Node, until
from .process import running

IDS = 500
FRAME_COMMANDS = 8191
RETRY_S = 0.05

SERVE = f"""
import sys
from pathlib import Path
from bezant.engine.replica import IDS_MEMORY_BYTES_MIN, ReplicaSettings
from bezant.net.server.serve import serve

SETTINGS = ReplicaSettings(checkpoint_ids={IDS}, ids_memory_bytes=IDS_MEMORY_BYTES_MIN)

def say(line):
    print(line, flush=True)

sys.exit(serve(Path(sys.argv[1]), "127.0.0.1:0", say=say, settings=SETTINGS, reader=False))
"""


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr(checkpointing_module, "RETRY_S", RETRY_S)
    node = Node(tmp_path / "data", msgspec.structs.replace(LARGE_SETTINGS, checkpoint_ids=IDS))
    await node.start()
    yield node
    await node.stop()


def checkpointing(node: Node) -> Checkpointing:
    return node.reactor._checkpointing


def made(node: Node) -> int:
    """Index of the checkpoint that the node goes on with."""
    return node.replica.checkpoint_index


async def fill(client: Client, first_id: int, count: int = IDS) -> Records:
    """Enough transfers for the next checkpoint, each committed for the first time."""
    sent = transfers(count, first_id)
    results = await client.execute(sent)
    assert not results["code"].any() and not (results["flags"] & ResultFlag.REPEATED).any()
    return sent


async def start(node: Node) -> Client:
    client = await node.connect()
    await client.execute(opening(*NAMES))
    return client


async def test_checkpoints_follow_one_another_and_old_ids_stay_known(node: Node) -> None:
    client, sent, before = await start(node), [], 0
    for turn in range(4):
        sent.append(await fill(client, 1 + turn * IDS))
        await until(lambda before=before: made(node) > before)  # type: ignore[misc]
        before = made(node)
    assert node.replica.ledger.generations.key_count == 0
    digest = node.replica.ledger.digest()
    for commands in sent:
        results = await client.execute(commands)
        assert set(results["code"].tolist()) == {COMMITTED}
        assert np.all(results["flags"] & ResultFlag.REPEATED)
    assert node.replica.ledger.digest() == digest
    assert await client.ask(Operation.STATISTICS)


async def child_of(node: Node) -> int:
    await until(lambda: checkpointing(node)._process is not None)
    process = checkpointing(node)._process
    assert process is not None
    return process.pid


@pytest.mark.parametrize("when", ["idle", "at once"])
async def test_a_child_that_dies_is_replaced(node: Node, when: str) -> None:
    client = await start(node)
    await fill(client, 1)
    first = await child_of(node)
    if when == "idle":
        await until(lambda: made(node) > 0)
    os.kill(first, signal.SIGKILL)
    before = made(node)
    await fill(client, 1 + IDS)
    await until(lambda: made(node) > before and not node.replica.frozen_index)
    assert await child_of(node) != first
    assert not checkpointing(node).failing


async def test_a_child_that_is_stuck_is_replaced(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await start(node)
    await fill(client, 1)
    await until(lambda: made(node) > 0)
    monkeypatch.setattr(checkpointing_module, "REPORT_WAIT_S_MAX", 0.2)
    first, before = await child_of(node), made(node)
    os.kill(first, signal.SIGSTOP)
    await fill(client, 1 + IDS)
    await until(lambda: checkpointing(node).failing)
    monkeypatch.undo()
    await until(lambda: made(node) > before)
    assert await child_of(node) != first


async def test_commands_wait_while_the_memory_for_ids_is_full(node: Node) -> None:
    """The child is slow, and not dead: nobody is refused."""
    client = await start(node)
    await fill(client, 1)
    await until(lambda: made(node) > 0)
    child = await child_of(node)
    os.kill(child, signal.SIGSTOP)
    next_id = 1 + IDS
    while node.replica.has_room_for_batch(FRAME_COMMANDS):
        assert set((await client.execute(transfers(FRAME_COMMANDS, next_id)))["code"].tolist()) == {COMMITTED}
        next_id += FRAME_COMMANDS
    answer = asyncio.ensure_future(client.execute(transfers(FRAME_COMMANDS, next_id)))
    await asyncio.sleep(0.2)
    assert not answer.done()
    os.kill(child, signal.SIGCONT)
    assert set((await answer)["code"].tolist()) == {COMMITTED}


async def test_a_disk_that_takes_no_checkpoint_refuses_only_when_the_memory_is_full(node: Node) -> None:
    client = await start(node)
    folder = node.replica.checkpoints.directory.path
    away = folder.with_name("away")
    folder.rename(away)
    folder.write_text("not a folder")
    next_id, code = 1, COMMITTED
    while code == COMMITTED:
        sent = transfers(FRAME_COMMANDS, next_id)
        code = int((await client.execute(sent))["code"][-1])
        next_id += FRAME_COMMANDS
        if node.replica.ledger.generations.key_count > IDS:
            await until(lambda: checkpointing(node).failing)
    assert code == ResultCode.STORAGE_FULL
    assert next_id > 10 * FRAME_COMMANDS
    folder.unlink()
    away.rename(folder)
    await until(lambda: made(node) > 0)
    assert not checkpointing(node).failing
    assert set((await client.execute(sent))["code"].tolist()) == {COMMITTED}


async def test_a_history_that_is_not_what_the_node_made_of_it_ends_the_node(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice, by two children: one that has erred by itself is not believed at once."""
    ended: list[BaseException] = []

    def end(error: BaseException) -> NoReturn:
        ended.append(error)
        raise asyncio.CancelledError

    monkeypatch.setattr(checkpointing_module, "end_after_bug", end)
    client = await start(node)
    await client.execute(transfers(10, 1))
    [segment] = [path for path in node.path.glob("shard-0000/segment-*") if path.name.endswith("1")]
    with segment.open("r+b") as file:
        file.seek(node.replica.log.bytes_count)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    await fill(client, 1_000)
    await until(lambda: bool(ended))
    assert "segment" in str(ended[0])


def is_gone(process_id: int) -> bool:
    """Whether a process has ended; nobody may have asked for its status yet."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("said", [b"", b'{"data_dir'])
def test_a_child_whose_node_ends_as_it_starts_it_ends_without_a_word(said: bytes) -> None:
    command = [sys.executable, "-m", "bezant.net.server.checkpoint_child"]
    done = subprocess.run(command, input=said, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


async def test_the_child_ends_with_its_node(tmp_path: Path) -> None:
    """However that ends: the child would hold the folder's lock, and might write what the next one writes."""
    async with running(tmp_path / "data", SERVE) as process:
        client = await process.connect()
        await client.execute(opening(*NAMES))
        await fill(client, 1)
        tasks = Path(f"/proc/{process.process.pid}/task/{process.process.pid}/children")
        await until(lambda: bool(tasks.read_text().split()))
        [child] = tasks.read_text().split()
        await process.end(signal.SIGKILL)
        await until(lambda: is_gone(int(child)))
    async with running(tmp_path / "data", SERVE) as process:
        client = await process.connect()
        results = await client.execute(transfers(IDS, 1))
        assert np.all(results["flags"] & ResultFlag.REPEATED)
