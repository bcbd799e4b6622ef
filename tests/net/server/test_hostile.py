"""Claim: whatever bytes a client sends, a real node answers what it must, says what is wrong, or closes; no more.

For each stream that hypothesis makes, what is due is known: the answers to all good frames before the damage, in order,
and the error that the damage is. Another client is served all the while, and the node's memory does not grow.
"""

import asyncio
import itertools
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.frames import (
    CLOSES_CONNECTION,
    FRAME_HEADER_SIZE,
    FRAME_SIZE_MAX,
    FrameError,
    FrameHeader,
    FrameReader,
    Operation,
    encode_frame,
    frame_checksum,
)
from bezant.protocol.messages import ErrorMessage, decode_message
from bezant.protocol.records import COMMAND_SIZE

from .books import COMMITTED, NAMES, opening, transfers
from .node import HELLO, WAIT_S, Client
from .process import NodeProcess, running

FIXED = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=250,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""The same streams every time, in a few seconds."""
MEMORY_GROWTH_BYTES_MAX: Final = 8 << 20
GONE_S_MAX: Final = 10.0
"""What a node may have more after a thousand hostile connections: less than a few kilobytes each would be."""
BAD_ID: Final = 99
_numbers = itertools.count(1)


class Damage(NamedTuple):
    """Bytes that are no good frame, and the errors that may be said about them."""

    name: str
    data: bytes
    codes: frozenset[FrameError]


def reseal(frame: bytes, offset: int, value: bytes) -> bytes:
    changed = bytearray(frame)
    changed[offset : offset + len(value)] = value
    changed[:8] = frame_checksum(changed).to_bytes(8, "little")
    return bytes(changed)


def flipped(frame: bytes, bit: int) -> Damage:
    """One bit turned over. In length or version it is met before the checksum can be."""
    changed = bytearray(frame)
    place = bit % (8 * len(frame))
    changed[place // 8] ^= 1 << place % 8
    codes = {FrameError.CHECKSUM_WRONG}
    if 8 <= place // 8 < 12:
        codes.add(FrameError.LENGTH_INVALID)
    if place // 8 == 13:
        codes = {FrameError.VERSION_UNSUPPORTED}
    return Damage(f"bit {place}", bytes(changed), frozenset(codes))


def frame_of(operation: int, size: int) -> bytes:
    return encode_frame(operation, BAD_ID, bytes(size))


SIZES = st.sampled_from([0, 1, 31, 127, 128, 129, 4000, 40 * COMMAND_SIZE])
GOOD_FRAME = st.builds(frame_of, st.just(int(Operation.PING)), SIZES)
LENGTHS = st.sampled_from([0, 1, 31, FRAME_SIZE_MAX + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1])
UNKNOWN = st.integers(0, 255).filter(lambda number: number not in set(Operation) - {Operation.ERROR})


def only(name: str, data: bytes, code: FrameError) -> Damage:
    return Damage(name, data, frozenset({code}))


DAMAGE = st.one_of(
    st.builds(flipped, GOOD_FRAME, st.integers(0, 1 << 20)),
    st.builds(
        lambda frame, length: only("length", reseal(frame, 8, length.to_bytes(4, "little")), FrameError.LENGTH_INVALID),
        GOOD_FRAME,
        LENGTHS,
    ),
    st.builds(
        lambda frame, version: only("version", reseal(frame, 13, bytes([version])), FrameError.VERSION_UNSUPPORTED),
        GOOD_FRAME,
        st.sampled_from([0, 2, 127, 255]),
    ),
    st.builds(
        lambda number, size: only("operation", frame_of(number, size), FrameError.OPERATION_UNKNOWN), UNKNOWN, SIZES
    ),
    st.builds(
        lambda size: only("commands", frame_of(Operation.COMMANDS, size), FrameError.BODY_MALFORMED),
        st.sampled_from([0, 1, COMMAND_SIZE - 1, COMMAND_SIZE + 1, 3 * COMMAND_SIZE + 64]),
    ),
    st.builds(lambda data: Damage("noise", data, frozenset(CLOSES_CONNECTION)), st.binary(min_size=64, max_size=3000)),
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Hostile"]:
    runner = Hostile(tmp_path_factory.mktemp("hostile"))
    yield runner
    runner.close()


class Hostile:
    """A node, and a loop in a thread for the client that behaves: hypothesis drives the others, one at a time."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._stack = AsyncExitStack()
        self.node: NodeProcess = self._run(self._stack.enter_async_context(running(folder / "data")))
        self.client: Client = self._run(self._open())

    async def _open(self) -> Client:
        client = await self.node.connect()
        assert not (await client.execute(opening(*NAMES)))["code"].any()
        return client

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(120)

    def serve_well(self) -> None:
        """The client that behaves gets its transfer done, and there is nobody else left after a while."""
        results = self._run(self.client.execute(transfers(1, next(_numbers))))
        assert (results["code"].tolist(), results["flags"].tolist()) == ([COMMITTED], [0])

    def connections(self) -> int:
        return int(self._run(self.client.statistics()).connections)

    def close(self) -> None:
        self._run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Conversation:
    """One hostile connection."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, WAIT_S)
        self._reader = FrameReader()

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # closed by the node, which `rest` will show

    def rest(self) -> list[tuple[FrameHeader, bytes]]:
        """Say no more and return everything that comes until the node closes: well-formed frames, all of them."""
        arrived: list[tuple[FrameHeader, bytes]] = []
        try:
            self._socket.shutdown(socket.SHUT_WR)
            while data := self._socket.recv(1 << 16):
                arrived += [(header, bytes(body)) for header, body in self._reader.feed(data)]
        except OSError as error:
            assert not isinstance(error, TimeoutError), "neither an answer nor an end"
        finally:
            self._socket.close()
        return arrived


def cut(stream: bytes, places: list[int]) -> Iterator[bytes]:
    """The stream in pieces."""
    bounds = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    for start, end in itertools.pairwise(bounds):
        yield stream[start:end]


@FIXED
@given(
    good=st.lists(SIZES, max_size=5),
    damage=DAMAGE,
    behind=st.one_of(st.just(b""), st.binary(max_size=200), st.just(encode_frame(Operation.PING, 7, b"behind"))),
    places=st.lists(st.integers(0, 1 << 20), max_size=4),
)
def test_good_frames_before_the_damage_are_answered_and_the_damage_is_named(
    hostile: Hostile, good: list[int], damage: Damage, behind: bytes, places: list[int]
) -> None:
    conversation = Conversation(hostile.node.address)
    frames = [encode_frame(Operation.PING, number, bytes(size)) for number, size in enumerate(good)]
    for piece in cut(b"".join([HELLO, *frames, damage.data, behind]), places):
        conversation.send(piece)
    arrived = conversation.rest()
    welcome, *answers = arrived
    assert welcome[0].operation == Operation.HELLO
    answered = answers[: len(good)]
    assert [(header.operation, header.request_id, body) for header, body in answered] == [
        (Operation.PING, number, bytes(size)) for number, size in enumerate(good)
    ]
    errors = [decode_message(body, ErrorMessage) for header, body in answers if header.operation == Operation.ERROR]
    if errors:
        assert FrameError(errors[0].code) in damage.codes
        assert errors[0].message
    else:
        # A length that grew, or noise that claims to be long: it is the start of a frame that never comes whole.
        assert int.from_bytes(damage.data[8:12], "little") > len(damage.data)
        assert len(answers) == len(good)
    hostile.serve_well()


@FIXED
@given(stream=st.binary(max_size=5000), places=st.lists(st.integers(0, 1 << 20), max_size=4))
def test_noise_instead_of_hello(hostile: Hostile, stream: bytes, places: list[int]) -> None:
    conversation = Conversation(hostile.node.address)
    for piece in cut(stream, places):
        conversation.send(piece)
    for header, body in conversation.rest():
        assert header.operation == Operation.ERROR
        assert FrameError(decode_message(body, ErrorMessage).code) in CLOSES_CONNECTION
    hostile.serve_well()


def test_neither_memory_nor_connections_are_left_behind(hostile: Hostile) -> None:
    """The same damage over and over: what a node holds for it is given back."""
    frame = encode_frame(Operation.COMMANDS, 1, transfers(2000, 1 << 40).tobytes())
    streams = [
        HELLO + frame[: FRAME_HEADER_SIZE + 70_000],
        HELLO + flipped(frame, 8 * 100_000).data,
        HELLO + encode_frame(200, 1, bytes(500_000)) + bytes(64),
        HELLO[:-1],
        bytes(200_000),
    ]
    for turn in range(2):
        for number in range(500):
            conversation = Conversation(hostile.node.address)
            conversation.send(streams[number % len(streams)])
            conversation.rest()
        if turn == 0:
            resident_bytes = hostile.node.resident_bytes
    assert hostile.node.resident_bytes < resident_bytes + MEMORY_GROWTH_BYTES_MAX
    hostile.serve_well()
    until_s = time.monotonic() + GONE_S_MAX  # The node hears of the end of the last one when its loop comes to that.
    while hostile.connections() > 1:
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_the_client_here_would_notice_a_malformed_answer() -> None:
    with pytest.raises(RemoteProtocolError):
        list(FrameReader().feed(flipped(encode_frame(Operation.PING, 1, b"x", flags=1), 200).data))
