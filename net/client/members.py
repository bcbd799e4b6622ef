"""Asks nodes about their group, and its leader to change it. For operators: not through a channel, which has a leader.

A group in trouble has none, so every question goes to a node that is named, on a connection of its own. A change may
be asked again when no answer came: one that is in force already is answered as if it had just been made.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from bezant.net.access.credentials import own_credentials
from bezant.net.client.link import Link, parse_address
from bezant.protocol.errors import BezantError, ConnectionFailed, RemoteProtocolError, RequestRefused, RequestTimedOut
from bezant.protocol.frames import FrameError, FrameHeader, Operation, encode_frame
from bezant.protocol.messages import (
    ChangeMembers,
    ErrorMessage,
    MembersChanged,
    MembersStatus,
    Welcome,
    decode_message,
    encode_message,
)

NODE_TIMEOUT_S: Final = 2.0
"""How long one node may take to say how the group is, while there are others to ask."""
CHANGE_TIMEOUT_S: Final = 10.0
"""How long one node may take to make a change before another is asked who leads."""
ROUND_PAUSE_S: Final = 0.1
"""Between two rounds of questions to all nodes, none of which leads."""
_TRY_ELSEWHERE: Final = frozenset({FrameError.NOT_LEADER, FrameError.OUTCOME_UNKNOWN, FrameError.OVERLOADED})
_REQUEST_ID: Final = 1


class _RefusedForNow(RequestRefused):
    """Refused by this node; ``leader`` is the address of one that may not, "" if none is known."""

    def __init__(self, error: ErrorMessage) -> None:
        super().__init__(error.code, error.message)
        self.leader = error.leader


async def ask_node(address: str, operation: Operation, body: bytes, timeout_s: float) -> bytes:
    """Ask the node at "host:port" one question, whether it leads or not, and return the body of its reply.

    Raises `ConnectionFailed`, `RequestTimedOut`, `RequestRefused`, `RemoteProtocolError`; `UsageError` for an address
    that is none.
    """
    host, port = parse_address(address)
    loop = asyncio.get_running_loop()
    reply: asyncio.Future[bytes] = loop.create_future()

    def on_frame(header: FrameHeader, frame_body: memoryview) -> None:
        if reply.done() or header.request_id != _REQUEST_ID:
            return
        if header.operation == operation:
            reply.set_result(bytes(frame_body))
        elif header.operation == Operation.ERROR:
            reply.set_exception(_refusal(frame_body))
        else:
            reply.set_exception(RemoteProtocolError(f"operation {operation} was answered with {header.operation}"))

    def on_end(_link: Link, error: BezantError) -> None:
        if not reply.done():
            reply.set_exception(error)
            reply.exception()  # Whoever waits sees it; if connecting failed nobody does.

    link = Link(on_frame, lambda: None, on_end)
    try:
        async with asyncio.timeout(timeout_s):
            shown = own_credentials()
            await loop.create_connection(lambda: link, host, port, **shown.dial_arguments(host, timeout_s))
            await link.greet(shown.token)
            link.write(encode_frame(operation, _REQUEST_ID, body, timeout_ms=max(1, int(timeout_s * 1000))))
            return await reply
    except TimeoutError:
        raise RequestTimedOut(f"the node at {address} did not answer within {timeout_s:g} s") from None
    except OSError as error:
        raise ConnectionFailed(f"the node at {address} cannot be reached: {error}") from error
    finally:
        link.end(ConnectionFailed("the question is answered"))


async def read_welcome(address: str, timeout_s: float) -> Welcome:
    """What the node at "host:port" says of itself, whether it leads or not. Raises as `ask_node` does."""
    host, port = parse_address(address)
    link = Link(lambda _header, _body: None, lambda: None, lambda _link, _error: None)
    try:
        async with asyncio.timeout(timeout_s):
            shown = own_credentials()
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: link, host, port, **shown.dial_arguments(host, timeout_s))
            return await link.greet(shown.token)
    except TimeoutError:
        raise RequestTimedOut(f"the node at {address} did not answer within {timeout_s:g} s") from None
    except OSError as error:
        raise ConnectionFailed(f"the node at {address} cannot be reached: {error}") from error
    finally:
        link.end(ConnectionFailed("the question is answered"))


def _refusal(body: memoryview) -> BezantError:
    try:
        return _RefusedForNow(decode_message(body, ErrorMessage))
    except RemoteProtocolError as error:
        return error


async def read_members(addresses: Sequence[str], timeout_s: float) -> MembersStatus:
    """How the group is, as its leader sees it or, if that does not answer, the first of these nodes that knows of one.

    If none knows of a leader, it is as the first sees it that answers. Raises what the last one failed with if none
    does.
    """
    failure: BezantError = ConnectionFailed("no address was given")
    leaderless: MembersStatus | None = None
    each_s = min(timeout_s, NODE_TIMEOUT_S) if len(addresses) > 1 else timeout_s
    for address in addresses:
        try:
            status = await _read_status(address, each_s)
        except (ConnectionFailed, RequestRefused) as error:
            failure = error
            continue
        if status.leader == 0:
            leaderless = leaderless or status  # It may be cut off, or not belong to the group any more.
            continue
        leader = next((other.client_address for other in status.members if other.node_id == status.leader), "")
        if status.leader != status.node_id and leader:
            try:
                return await _read_status(leader, each_s)
            except (ConnectionFailed, RequestRefused):
                return status
        return status
    if leaderless is not None:
        return leaderless
    raise failure


async def _read_status(address: str, timeout_s: float) -> MembersStatus:
    return decode_message(await ask_node(address, Operation.MEMBERS, b"", timeout_s), MembersStatus)


async def change_members(addresses: Sequence[str], change: ChangeMembers, timeout_s: float) -> MembersChanged:
    """Have the leader make a change, found by way of these nodes; returns when it is committed.

    What cannot be done yet, such as to let a learner vote that has not caught up, is asked again until it can. Raises
    `RequestRefused` if the leader will not, or not in time; `RequestTimedOut` if it is not known whether it did.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    body = encode_message(change)
    failure: BezantError = ConnectionFailed("no node was asked")
    not_yet: _RefusedForNow | None = None
    named = ""
    while True:
        for address in dict.fromkeys((named, *addresses) if named else addresses):
            left_s = deadline_s - loop.time()
            if left_s <= 0 and not_yet is not None:
                raise not_yet
            if left_s <= 0:
                raise RequestTimedOut(
                    f"no leader answered within {round(timeout_s, 2):g} s; the last that was heard: {failure}"
                )
            try:
                reply = await ask_node(address, Operation.CHANGE_MEMBERS, body, min(left_s, CHANGE_TIMEOUT_S))
                return decode_message(reply, MembersChanged)
            except _RefusedForNow as refusal:
                if refusal.code not in _TRY_ELSEWHERE:
                    raise
                failure = refusal
                if refusal.code == FrameError.OVERLOADED:
                    not_yet = refusal
                elif refusal.code == FrameError.OUTCOME_UNKNOWN:
                    not_yet = None
                if refusal.leader and refusal.leader != address:
                    named = refusal.leader
                    break
            except ConnectionFailed as error:
                failure, named = error, ""
        await asyncio.sleep(min(ROUND_PAUSE_S, max(0.0, deadline_s - loop.time())))
