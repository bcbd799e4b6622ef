"""Claim: a reader ends when it is told to, whatever its threads are at."""

import asyncio
import sys
from pathlib import Path

import pytest

from bezant.protocol.kinds import CommandKind

from .histories import History, Row

END_S = 60.0
"""Seconds that a busy machine is given to start a reader and to end it."""
STUCK = """
import os, signal, sys, time
from bezant.net.reader import process, projecting, server
from bezant.net.reader.parts import Parts
from bezant.net.reader.setup import Setup
from bezant.net.server.listening import address_of, bind_address
from bezant.protocol.errors import StorageError

projecting.STOP_S_MAX = 0.1
projecting.TOGETHER_EVENTS_MIN = 0  # Each in a thread of its own.
FAILS = sys.argv[2] == "fails"
servers = []

class Stuck:
    def start(self):
        return None

    def begin(self, follower):
        pass

    def take_in(self, entries):
        if FAILS:
            servers[0]._loop.call_soon_threadsafe(servers[0]._fail, StorageError("the disk is gone"))
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)

class Server(server.ReaderServer):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        servers.append(self)

process.ReaderServer = Server
server.make_parts = lambda *_: Parts([Stuck(), Stuck()], {}, {})
sockets = bind_address("127.0.0.1:0")
process.run_reader(Setup(sys.argv[1], 0, address_of(sockets[0])), sockets, [], ends_with_input=False)
"""


@pytest.mark.parametrize(("what", "status"), [("is told to", 0), ("fails", 1)])
async def test_a_thread_that_does_not_end_holds_nobody_up(tmp_path: Path, what: str, status: int) -> None:
    """The interpreter waited at its end for what helps that thread, as long as it took."""
    history = History(tmp_path / "shard-0000", segment_size=1 << 20)
    history.write(Row(int(CommandKind.OPEN), 1))
    history.publish()
    reader = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STUCK, str(tmp_path), what, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(END_S):
            _, told = await reader.communicate()
    finally:
        if reader.returncode is None:
            reader.kill()
        history.close()
    assert b"is left as it is" in told
    assert (b"the reader ends: the disk is gone" in told) == (what == "fails")
    assert reader.returncode == status
