"""Frames: how requests and replies travel. A 32-byte header, then a body; the length counts both.

Requests are pipelined: a client may send the next before it has the answer to the last, and a reply carries the
request id of its request. Commands and their results are arrays of records as `records.py` lays them out; look-ups
and control messages are described in ``README.md``. One XXH3-64 checksum covers all bytes after itself.

Errors in framing (checksum, length, version) end the connection, because nothing after them can be trusted; errors in
a well-framed request are answered with an ERROR frame and the connection goes on.
"""

import struct
from enum import IntEnum, IntFlag, unique
from typing import Final, NamedTuple

import xxhash
from typing_extensions import Buffer

from bezant.protocol.errors import LocalProtocolError, RemoteProtocolError
from bezant.protocol.records import ACCOUNT_SIZE, COMMAND_SIZE, EVENT_ANSWER_SIZE, PUSHED_EVENT_SIZE, RESULT_SIZE

PROTOCOL_VERSION: Final = 1
FRAME_HEADER_SIZE: Final = 32
FRAME_SIZE_MAX: Final = 1 << 20
HELLO_SIZE_MAX: Final = 4096
"""Bytes of the first frame of a connection, header included."""
BATCH_COUNT_MAX: Final = (FRAME_SIZE_MAX - FRAME_HEADER_SIZE) // COMMAND_SIZE
"""Commands in one frame, at most: 8191."""
ACCOUNT_COUNT_MAX: Final = (FRAME_SIZE_MAX - FRAME_HEADER_SIZE) // ACCOUNT_SIZE
"""Accounts in one reply, and so in one look-up, at most: 6553."""
TRIES_COUNT_MAX: Final = 8191
"""Tries in one question to another shard, at most: as many as there are commands in a frame."""
EVENT_COUNT_MAX: Final = (FRAME_SIZE_MAX - FRAME_HEADER_SIZE) // EVENT_ANSWER_SIZE
"""Events in one reply, and so in one look-up, at most: 5041."""
PUSHED_COUNT_MAX: Final = (FRAME_SIZE_MAX - FRAME_HEADER_SIZE) // PUSHED_EVENT_SIZE
"""Events in one EVENTS frame, at most: 5041."""
HISTORY_ACCOUNTS_MAX: Final = 4096
"""Accounts in one question to the history, at most."""
HISTORY_IDS_MAX: Final = 1024
"""Ids in one question to the history, at most."""
HISTORY_LINES_MAX: Final = 4096
"""Lines in one page of an answer, at most."""
FILTER_ACCOUNTS_MAX: Final = 100_000
"""Accounts in the filter of one subscription, at most."""
SUBSCRIPTIONS_MAX: Final = 1024
"""Subscriptions on one connection, at most."""
SUBSCRIPTION_NAME_SIZE_MAX: Final = 64
"""Characters of the name of a subscription, printable ASCII without spaces, at most."""

POSITION_NAMES_MAX: Final = 10_000
"""Names under which positions are remembered, at most."""
KEEP_POSITIONS_MAX: Final = 1_000
"""Names in one KEEP_POSITIONS, at most."""

CHECKSUM_OFFSET_END: Final = 8
_HEADER: Final = struct.Struct("<QIBBHQIHH")
HEADER_REST: Final = struct.Struct("<IBBHQIHH")
"""The header behind its checksum."""
_CHECKSUM: Final = struct.Struct("<Q")

if _HEADER.size != FRAME_HEADER_SIZE or BATCH_COUNT_MAX * RESULT_SIZE + FRAME_HEADER_SIZE > FRAME_SIZE_MAX:
    raise AssertionError("frame sizes do not fit together")


@unique
class Operation(IntEnum):
    """What a frame asks, or answers when it has the REPLY flag."""

    HELLO = 1
    PING = 2
    COMMANDS = 3
    LOOKUP_ACCOUNTS = 4
    LOOKUP_EVENTS = 5
    LIST_ACCOUNTS = 6
    LIST_CURRENCIES = 7
    REGISTER_CURRENCY = 8
    STATISTICS = 9
    MEMBERS = 10
    CHANGE_MEMBERS = 11
    JOIN = 12
    MAP = 13
    KEEP_POSITIONS = 14
    REPLACE_MAP = 15
    PEER_HELLO = 16
    PEER_MESSAGE = 17
    PEER_PING = 18
    LEGS = 19
    TRANSACTIONS = 20
    TRIES = 21
    TRANSACT = 22
    MOVE_SLOTS = 24
    TAKE_SLOTS = 25
    MOVES = 26
    TOKENS = 27
    CHANGE_TOKENS = 28
    NOTE_ACT = 29
    QUERY_ACCOUNTS = 32
    STATEMENT = 33
    FIND_TRANSFERS = 34
    OPEN_HOLDS = 35
    TOTALS = 36
    SET_METADATA = 37
    GET_METADATA = 38
    CLOSE_TIME = 39
    SUBSCRIBE = 40
    EVENTS = 41
    PROGRESS = 42
    UNSUBSCRIBE = 43
    ACKNOWLEDGE = 44
    TREE_HEAD = 48
    RECEIPT = 49
    CONSISTENCY = 50
    ERROR = 255


@unique
class FrameFlag(IntFlag):
    """Bits of a frame header; all others are zero."""

    REPLY = 1


@unique
class FrameError(IntEnum):
    """Why a frame, not a command, was refused: the ``code`` of an ERROR frame."""

    CHECKSUM_WRONG = 1
    LENGTH_INVALID = 2
    VERSION_UNSUPPORTED = 3
    OPERATION_UNKNOWN = 4
    BODY_MALFORMED = 5
    HELLO_EXPECTED = 6
    REQUEST_REFUSED = 7
    OVERLOADED = 8
    NOT_LEADER = 9
    OUTCOME_UNKNOWN = 10
    BEHIND = 11
    TOO_SLOW = 12
    WRONG_SHARD = 13
    UNAUTHENTICATED = 14
    FORBIDDEN = 15


CLOSES_CONNECTION: Final = frozenset(
    {
        FrameError.CHECKSUM_WRONG,
        FrameError.LENGTH_INVALID,
        FrameError.VERSION_UNSUPPORTED,
        FrameError.HELLO_EXPECTED,
        FrameError.TOO_SLOW,
        FrameError.UNAUTHENTICATED,
    }
)


class FrameHeader(NamedTuple):
    """A decoded header. ``timeout_ms`` is how long the sender will wait (0: no deadline), counted from receipt."""

    checksum: int
    length: int
    operation: int
    version: int
    flags: int
    request_id: int
    timeout_ms: int
    shard: int
    map_version: int


def encode_frame(
    operation: int,
    request_id: int,
    body: Buffer = b"",
    *,
    flags: int = 0,
    timeout_ms: int = 0,
    shard: int = 0,
    map_version: int = 0,
) -> bytes:
    """Encode one frame; `body` is bytes or any contiguous array, of records too.

    Raises `LocalProtocolError` if the frame would be longer than FRAME_SIZE_MAX or a field does not fit its width.
    """
    view = memoryview(body).cast("B")
    length = FRAME_HEADER_SIZE + len(view)
    if length > FRAME_SIZE_MAX:
        raise LocalProtocolError(f"a frame of {length} bytes is over the {FRAME_SIZE_MAX} that one may have")
    try:
        rest = HEADER_REST.pack(length, operation, PROTOCOL_VERSION, flags, request_id, timeout_ms, shard, map_version)
    except struct.error as error:
        raise LocalProtocolError(f"a field of the frame header does not fit its width: {error}") from error
    hasher = xxhash.xxh3_64(rest)
    hasher.update(view)
    return b"".join((_CHECKSUM.pack(hasher.intdigest()), rest, view))


def decode_header(data: Buffer) -> FrameHeader:
    """Decode the header at the start of `data`, which holds at least FRAME_HEADER_SIZE bytes; nothing is checked."""
    return FrameHeader(*_HEADER.unpack_from(data))


def check_header(header: FrameHeader) -> None:
    """Check what can be checked before the body is there. Raises `RemoteProtocolError`."""
    if header.version != PROTOCOL_VERSION:
        raise RemoteProtocolError(f"protocol version {header.version} is not spoken here, only {PROTOCOL_VERSION}")
    if not FRAME_HEADER_SIZE <= header.length <= FRAME_SIZE_MAX:
        raise RemoteProtocolError(f"a frame has {FRAME_HEADER_SIZE} to {FRAME_SIZE_MAX} bytes, not {header.length}")


def check_frame(frame: Buffer) -> FrameHeader:
    """Check a whole frame, checksum included, and return its header. Raises `RemoteProtocolError`."""
    view = memoryview(frame).cast("B")
    header = decode_header(view)
    check_header(header)
    if header.length != len(view):
        raise RemoteProtocolError(f"the header says {header.length} bytes and the frame has {len(view)}")
    if xxhash.xxh3_64_intdigest(view[CHECKSUM_OFFSET_END:]) != header.checksum:
        raise RemoteProtocolError("the checksum of the frame is wrong")
    return header


def frame_checksum(frame: Buffer) -> int:
    """The checksum that belongs in the first 8 bytes of a frame whose other bytes are final."""
    return xxhash.xxh3_64_intdigest(memoryview(frame).cast("B")[CHECKSUM_OFFSET_END:])


class FrameReader:
    """Cuts a stream of bytes into checked frames, however the network split it. For clients; servers use arrays.

    Holds at most one unfinished frame: FRAME_SIZE_MAX bytes.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._damage: RemoteProtocolError | None = None

    def feed(self, data: Buffer) -> list[tuple[FrameHeader, memoryview]]:
        """Take bytes in and return (header, body) of every frame that they complete.

        Bodies do not outlive `data` unless a frame was split; copy what you keep. Raises `RemoteProtocolError`, then
        and ever after: nothing that follows damage can be trusted. Frames before the damage in the same bytes are
        lost with it; requests that they answered count as unanswered.
        """
        if self._damage is not None:
            raise self._damage
        try:
            return self._cut(data)
        except RemoteProtocolError as damage:
            self._damage = damage
            raise

    def _cut(self, data: Buffer) -> list[tuple[FrameHeader, memoryview]]:
        if self._pending:
            self._pending += memoryview(data).cast("B")
            if len(self._pending) < FRAME_HEADER_SIZE:
                return []
            header = decode_header(self._pending)
            check_header(header)
            if len(self._pending) < header.length:
                return []
            view = memoryview(bytes(self._pending))
        else:
            view = memoryview(data).cast("B")
        frames: list[tuple[FrameHeader, memoryview]] = []
        start = 0
        while len(view) - start >= FRAME_HEADER_SIZE:
            header = decode_header(view[start : start + FRAME_HEADER_SIZE])
            check_header(header)
            end = start + header.length
            if end > len(view):
                break
            if xxhash.xxh3_64_intdigest(view[start + CHECKSUM_OFFSET_END : end]) != header.checksum:
                raise RemoteProtocolError("the checksum of the frame is wrong")
            frames.append((header, view[start + FRAME_HEADER_SIZE : end]))
            start = end
        if self._pending or start < len(view):
            self._pending = bytearray(view[start:])
        return frames
