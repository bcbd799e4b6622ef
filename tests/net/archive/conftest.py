"""A small data folder with a history of several segments, and with a checkpoint in the middle of it."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import uvloop

from bezant.cli.ports import free_ports
from bezant.engine.replica import IDS_MEMORY_BYTES_MIN, Replica, ReplicaSettings, open_replica
from bezant.net.server.checkpoint_child import CheckpointWorker, Order, Setup

from ...engine.commands import opening_world, transfers

SETTINGS: Final = ReplicaSettings(
    segment_size=64 << 10,
    free_space_floor=0,
    accounts_max=1024,
    holds_max=200,
    ids_memory_bytes=IDS_MEMORY_BYTES_MIN,
)
START_TIMEOUT_S: Final = 60.0


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Names the event loop that pytest-asyncio runs the tests of this folder on: that of the command line."""
    return {"uvloop": uvloop.new_event_loop}


class Folder(NamedTuple):
    """A data folder, and what its node said of it at the end."""

    path: Path
    state_digest: str
    chain_hash: str
    last_index: int


def close_cleanly(replica: Replica) -> None:
    """As the node of a group of one does: what is durable is committed."""
    replica.write_group()
    replica.log.commit_index = replica.log.last_index
    replica.tidy()
    replica.close()


def write_history(path: Path, batches: int, *, first: bool = True, shard: int = 0) -> Folder:
    """Open a folder, new or not, and add batches of 100 transfers."""
    replica = open_replica(path, shard=shard, settings=SETTINGS)
    if first:
        replica.execute(opening_world("ann", "bob"))
    for _ in range(batches):
        replica.execute(transfers("world", "ann", 100, 7))
        replica.write_group()
    found = Folder(path, replica.ledger.digest(), replica.log.chain_hash.hex(), replica.log.last_index)
    close_cleanly(replica)
    return found


def make_checkpoint(folder: Folder) -> None:
    """Leave a checkpoint behind the last entry, as the child of a node does."""
    worker = CheckpointWorker(Setup(str(folder.path), 0, SETTINGS, (3, 5)))
    try:
        worker.carry_out(Order(folder.last_index))
    finally:
        worker.close()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Three segments and more before the checkpoint, one and more behind it."""
    path = tmp_path / "data"
    make_checkpoint(write_history(path, 12))
    return write_history(path, 5, first=False)


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    """Where a server of this machine answers as S3 does; it ends with the tests."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail("the server does not answer")
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(timeout=10)
