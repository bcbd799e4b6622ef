"""A stand-in for a node: it answers the load's requests and can be told to misbehave. It keeps no books and no log.

Run as ``python fake_node.py serve --data DIR --listen HOST:PORT [--echo HOST:PORT] [--fault NAME] [--fault-after N]``,
it prints the same lines as ``bezant serve``. It says that every transfer happened, by the event count of the
first account that was opened. Frames of one transfer take a kernel, so that it answers faster than any node.
"""

import argparse
import asyncio
import os
import signal
import sys
import time

import numpy as np
import uvloop

from bezant.protocol.codes import ResultCode
from bezant.protocol.frames import (
    BATCH_COUNT_MAX,
    FRAME_HEADER_SIZE,
    FRAME_SIZE_MAX,
    PROTOCOL_VERSION,
    FrameError,
    FrameFlag,
    FrameReader,
    Operation,
    encode_frame,
)
from bezant.protocol.kinds import CommandKind, ResultFlag
from bezant.protocol.messages import (
    Currencies,
    Currency,
    ErrorMessage,
    Hello,
    Welcome,
    decode_message,
    encode_message,
)
from bezant.protocol.records import ACCOUNT, COMMAND, RESULT
from bezant.protocol.statistics import Statistics

REQUEST_SIZE = 160
REPLY_SIZE = 96
FAULTS = (
    "none",
    "checksum",
    "request-id",
    "reject",
    "repeat",
    "lose",
    "error",
    "close",
    "die",
    "silent",
    "wrong-connection",
)


def compile_answer_short():
    """The kernel that answers; a node with a fault does without it, and so starts without loading Numba."""
    from bezant.engine.compiled import kernel
    from bezant.engine.hashing import xxh3_64

    @kernel
    def answer_short(words, replies, reply_words, reply_checksums, count):
        for number in range(count):
            request = number * REQUEST_SIZE // 8
            reply = number * REPLY_SIZE // 8
            reply_words[reply + 1] = (words[request + 1] & ~0xFFFFFFFF) | REPLY_SIZE | 1 << 48
            reply_words[reply + 2] = words[request + 2]
            reply_words[reply + 4] = 0
            reply_words[reply + 5] = 1
            start = number * REPLY_SIZE
            reply_checksums[reply] = xxh3_64(replies, start + 8, start + REPLY_SIZE)

    return answer_short


class Node:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.fault = arguments.fault
        self.batch_max = arguments.batch_max
        self.fault_after = arguments.fault_after
        self.answer_short = compile_answer_short() if self.fault == "none" else None
        self.commands = 0
        self.committed = 0
        self.first_account_head = 0
        self.connections: list[Connection] = []
        self.started = time.monotonic()

    def statistics(self) -> Statistics:
        return Statistics(
            uptime_s=time.monotonic() - self.started,
            connections=len(self.connections),
            commands=self.commands,
            events=self.committed,
            accounts=0,
            entries=0,
            syncs=0,
            syncs_inline=0,
            bytes_in=0,
            bytes_out=0,
            log_bytes=self.committed * 192,
            durable_index=0,
            durable_sequence=0,
            bytes_in_flight=0,
            stage_s={"execute_busy": self.committed * 1e-6},
        )

    def welcome(self) -> Welcome:
        return Welcome(
            server="fake",
            protocol_version=PROTOCOL_VERSION,
            log_id="0",
            shard=0,
            rules_version=1,
            kernel_digest="fake",
            frame_size_max=FRAME_SIZE_MAX,
            batch_count_max=self.batch_max,
            connection_bytes_in_flight_max=4 << 20,
            clock_ns=time.time_ns(),
        )

    def accounts(self, body: memoryview) -> np.ndarray:
        identifiers = np.frombuffer(body, np.int64).reshape(-1, 2)
        records = np.zeros(len(identifiers), ACCOUNT)
        records["id_head"], records["id_tail"] = identifiers[:, 0], identifiers[:, 1]
        records["found"] = 1
        records["event_count"][identifiers[:, 0] == self.first_account_head] = 2 * self.committed
        return records


class Connection(asyncio.BufferedProtocol):
    def __init__(self, node: Node) -> None:
        self.node = node
        self.received = np.zeros(4 << 20, np.uint8)
        self.words = self.received.view(np.int64)
        self.view = memoryview(self.received.data)
        self.replies = np.zeros(4 << 20, np.uint8)
        self.reply_words = self.replies.view(np.int64)
        self.reply_checksums = self.replies.view(np.uint64)
        self.size = 0
        self.reader = FrameReader()
        self.answer_short = node.answer_short

    def connection_made(self, transport):
        self.transport = transport
        self.node.connections.append(self)

    def connection_lost(self, error):
        self.node.connections.remove(self)

    def get_buffer(self, size_hint):
        return self.view[self.size :]

    def buffer_updated(self, size):
        self.size += size
        if self.node.fault == "none":
            self.take_short()
        for header, body in self.reader.feed(bytes(self.view[: self.size])):
            self.answer(header, body)
        self.size = 0

    def take_short(self):
        """Answer the run of whole one-transfer frames at the front; a rest that is cut off waits for its end."""
        if self.reader._pending or self.size < REQUEST_SIZE:
            return
        whole = self.size // REQUEST_SIZE
        expected = REQUEST_SIZE | Operation.COMMANDS << 32 | PROTOCOL_VERSION << 40
        matches = self.words[1 : whole * REQUEST_SIZE // 8 : REQUEST_SIZE // 8] == expected
        count = whole if matches.all() else int(matches.argmin())
        if not count:
            return
        self.answer_short(self.words, self.replies, self.reply_words, self.reply_checksums, count)
        self.node.commands += count
        self.node.committed += count
        self.transport.write(self.replies[: count * REPLY_SIZE].tobytes())
        left = self.size - count * REQUEST_SIZE
        self.received[:left] = self.received[count * REQUEST_SIZE : self.size].copy()
        self.size = left

    def answer(self, header, body):
        operation, reply = header.operation, b""
        if operation == Operation.HELLO:
            decode_message(body, Hello)
            reply = encode_message(self.node.welcome())
        elif operation == Operation.STATISTICS:
            reply = encode_message(self.node.statistics())
        elif operation == Operation.LOOKUP_ACCOUNTS:
            reply = self.node.accounts(body)
        elif operation == Operation.LIST_CURRENCIES:
            reply = encode_message(Currencies([Currency("EUR", 2)]))
        elif operation == Operation.COMMANDS:
            self.answer_commands(header, np.frombuffer(body, COMMAND))
            return
        self.transport.write(encode_frame(operation, header.request_id, reply, flags=FrameFlag.REPLY))

    def answer_commands(self, header, commands):
        node = self.node
        results = np.zeros(len(commands), RESULT)
        transfers = commands["kind"] == CommandKind.TRANSFER
        results["position"] = 1
        if not node.first_account_head:
            node.first_account_head = int(commands["debit_head"][0])
        node.commands += len(commands)
        due = bool(transfers.any()) and node.commands > node.fault_after
        fault = node.fault if due else "none"
        if fault == "reject":
            results["code"] = ResultCode.INSUFFICIENT_FUNDS
        elif fault == "repeat":
            results["flags"] = ResultFlag.REPEATED
        if fault in {"none", "checksum", "request-id", "error"}:
            node.committed += int(transfers.sum())
        request_id = header.request_id + (1 << 40 if fault == "request-id" else 0)
        reply = bytearray(encode_frame(Operation.COMMANDS, request_id, results, flags=FrameFlag.REPLY))
        target = self.transport
        if fault == "error":
            message = encode_message(ErrorMessage(FrameError.OVERLOADED, "too much"))
            reply = encode_frame(Operation.ERROR, header.request_id, message, flags=FrameFlag.REPLY)
        elif fault == "checksum":
            reply[FRAME_HEADER_SIZE] ^= 1
        elif fault == "close":
            self.transport.abort()
            return
        elif fault == "die":
            os._exit(9)
        elif fault == "silent":
            return
        elif fault == "wrong-connection":
            target = next(other for other in reversed(node.connections) if other is not self).transport
        target.write(bytes(reply))


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def serve(arguments: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    node = Node(arguments)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    host, port = arguments.listen.rsplit(":", 1)
    server = await loop.create_server(lambda: Connection(node), host, int(port))
    print(f"listening on {host}:{server.sockets[0].getsockname()[1]}", flush=True)
    if arguments.echo:
        host, port = arguments.echo.rsplit(":", 1)
        echo = await loop.create_server(Echo, host, int(port))
        print(f"echo on {host}:{echo.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--data")
    parser.add_argument("--listen", required=True)
    parser.add_argument("--echo")
    parser.add_argument("--fault", choices=FAULTS, default="none")
    parser.add_argument("--fault-after", type=int, default=0)
    parser.add_argument("--batch-max", type=int, default=BATCH_COUNT_MAX)
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(arguments))


if __name__ == "__main__":
    sys.exit(main())
