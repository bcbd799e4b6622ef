"""A stand-in for a node of a group: it listens where its node file says, and says who leads. It keeps no books.

Run as ``python fake_member.py --data DIR/node-N``. Files beside its folder steer it: ``leader`` holds the id of the
leader, ``fails-N`` makes node N end at once; to ``stops`` each node adds its id when it is told to stop.
"""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from bezant.engine.node_file import read_node_file
from bezant.protocol.frames import FrameFlag, FrameReader, Operation, encode_frame
from bezant.protocol.messages import MembersStatus, Welcome, encode_message

WELCOME = Welcome("fake", 1, "00", 0, 1, "d", 1 << 20, 8191, 8 << 20, 1)


async def main(data: Path) -> None:
    node = read_node_file(data)
    (data / "shard-0000").mkdir(exist_ok=True)
    if (data.parent / f"fails-{node.node_id}").exists():
        sys.exit("it was told to fail")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader()
        while received := await reader.read(4096):
            for header, _ in frames.feed(received):
                steering = data.parent / "leader"
                leader = int(steering.read_text()) if steering.exists() else 0
                is_hello = header.operation == Operation.HELLO
                answer = WELCOME if is_hello else MembersStatus(node.node_id, leader, 1, 1, [])
                body = encode_message(answer)
                writer.write(encode_frame(header.operation, header.request_id, body, flags=FrameFlag.REPLY))
        writer.close()

    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    host, _, port = node.client_address.rpartition(":")
    server = await asyncio.start_server(serve, host, int(port))
    sys.stdout.write(f"listening on {node.client_address}\n")
    sys.stdout.flush()
    await stopped.wait()
    with (data.parent / "stops").open("a") as stops:
        stops.write(f"{node.node_id}\n")
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    asyncio.run(main(parser.parse_args().data))
