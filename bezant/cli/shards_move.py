"""`bezant shards move`: moves slots from the shards that have them to another one, while all of them serve."""

import argparse
import asyncio
import os
from typing import TYPE_CHECKING, Any, Final

from bezant.cli.errors import InputWrong
from bezant.cli.output import write_json, write_line, write_table
from bezant.cli.progress import Bar, progress
from bezant.cli.session import DEFAULT_ADDRESS, add_json_argument, addresses, positive_seconds, run_async
from bezant.protocol.errors import BezantError, ConnectionFailed, RequestRefused
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.placement import SHARD_MAX, SLOT_COUNT

if TYPE_CHECKING:
    from bezant.protocol.moves import MoveStatus
    from bezant.protocol.placement import SlotMap

LOOK_S: Final = 0.2
"""Seconds between two looks at how far a move is."""
_ENDED: Final = ("ended", "called_off")
_HEADINGS: Final = ("from", "to", "slots", "phase", "copied", "gap", "problem")

Planned = tuple[int, int, list[int]]
"""From which shard, to which, which slots."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]", timeout_s: float) -> None:
    """Add the arguments of `bezant shards move`."""
    parser = subparsers.add_parser(
        "move",
        description="Move slots to another shard while both serve: their accounts, what is held on them, and every id "
        "that they have used. Interrupted, the move goes on: see `bezant shards`.",
    )
    parser.add_argument(
        "--connect",
        metavar="HOST:PORT,...",
        type=addresses,
        default=DEFAULT_ADDRESS,
        help="nodes of any shard (default: %(default)s)",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--slots", metavar="A-B,C,...", type=slots_of_text, help=f"which slots, of 0 to {SLOT_COUNT - 1}")
    what.add_argument("--even", action="store_true", help="as few slots as it takes for all shards to have as many")
    parser.add_argument("--to", metavar="S", type=_shard, help="with --slots: the shard that is to have them")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        dest="timeout_s",
        type=positive_seconds,
        default=timeout_s,
        help="how long to wait for each answer (default: %(default)s)",
    )
    add_json_argument(parser)


def slots_of_text(text: str) -> list[int]:
    """Read ``0-1023,2000``; for argparse, which reports the error."""
    slots: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not (first.isascii() and first.isdigit() and (not dash or (last.isascii() and last.isdigit()))):
            raise argparse.ArgumentTypeError(f"slots are written like 0-1023,2000, not {text!r}")
        slots |= set(range(int(first), int(last if dash else first) + 1))
    if not slots or max(slots) >= SLOT_COUNT:
        raise argparse.ArgumentTypeError(f"slots have numbers from 0 to {SLOT_COUNT - 1}, the lower one first")
    return sorted(slots)


def _shard(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= SHARD_MAX):
        raise argparse.ArgumentTypeError(f"the number of a shard is 0 to {SHARD_MAX}, not {text!r}")
    return int(text)


def plan(slot_map: "SlotMap", slots: list[int], to: int) -> list[Planned]:
    """The moves that bring these slots to a shard, one for each that has any of them."""
    from bezant.protocol.placement import owners_of

    owners = owners_of(slot_map).tolist()
    wanted: dict[int, list[int]] = {}
    for slot in slots:
        if owners[slot] != to:
            wanted.setdefault(owners[slot], []).append(slot)
    return [(source, to, found) for source, found in sorted(wanted.items())]


def plan_even(slot_map: "SlotMap") -> list[Planned]:
    """The moves after which no shard has more than one slot more than another; the last slots of a shard go first."""
    from bezant.protocol.placement import owners_of

    owners = owners_of(slot_map).tolist()
    shards = [place.shard for place in slot_map.shards]
    has = {shard: [slot for slot, owner in enumerate(owners) if owner == shard] for shard in shards}
    share, rest = divmod(SLOT_COUNT, len(shards))
    by_size = sorted(shards, key=lambda shard: -len(has[shard]))
    due = {shard: share + (number < rest) for number, shard in enumerate(by_size)}
    planned: list[Planned] = []
    for source in by_size:
        for to in reversed(by_size):
            count = min(len(has[source]) - due[source], due[to] - len(has[to]))
            if count > 0:
                has[source], moved = has[source][:-count], has[source][-count:]
                has[to] = [*has[to], *moved]
                planned.append((source, to, moved))
    return planned


def run(arguments: argparse.Namespace) -> int:
    """Move them; the exit status is 1 if a move was called off."""
    if (arguments.slots is None) != (arguments.to is None):
        raise InputWrong("--slots goes with --to: which shard is to have them")
    return run_async(_move(arguments))


async def _move(arguments: argparse.Namespace) -> int:
    from bezant.cli.shards import ask_map

    nodes = arguments.connect.split(",")
    slot_map = await ask_map(nodes, arguments.timeout_s)
    if arguments.to is not None and all(place.shard != arguments.to for place in slot_map.shards):
        raise InputWrong(f"the slot map names no shard {arguments.to}", "see those that there are: bezant shards")
    planned = plan_even(slot_map) if arguments.even else plan(slot_map, arguments.slots, arguments.to)
    rows: list[dict[str, Any]] = []
    for source, to, slots in planned:
        status = await _carry_out(slot_map, source, to, slots, arguments.timeout_s)
        rows.append(
            {
                "move": status.move,
                "from_shard": source,
                "to_shard": to,
                "slots": len(slots),
                "phase": status.phase,
                "copied": status.copied,
                "gap_ms": status.gap_ms,
                "problem": status.problem,
            }
        )
        if status.phase != "ended":
            break
    if arguments.json:
        write_json({"moves": rows})
    else:
        _tell(rows)
    return 0 if all(row["phase"] == "ended" for row in rows) else 1


def _tell(rows: list[dict[str, Any]]) -> None:
    cells = [
        (
            str(row["from_shard"]),
            str(row["to_shard"]),
            str(row["slots"]),
            row["phase"].replace("_", " "),
            str(row["copied"]),
            f"{row['gap_ms']:.0f} ms",
            row["problem"],
        )
        for row in rows
    ]
    write_table(_HEADINGS, cells, right=frozenset({"from", "to", "slots", "copied", "gap"}))
    if not rows:
        write_line("there is nothing to move")


async def _carry_out(slot_map: "SlotMap", source: int, to: int, slots: list[int], timeout_s: float) -> "MoveStatus":
    """Begin a move and see it to its end. Raises `RequestRefused` if the source will not begin it."""
    import numpy as np

    from bezant.protocol.messages import encode_message
    from bezant.protocol.moves import MoveSlots, encode_slots

    wanted = np.zeros(SLOT_COUNT, np.bool_)
    wanted[slots] = True
    asked = MoveSlots(os.urandom(16), encode_slots(wanted), to)
    body, move = encode_message(asked), asked.move.hex()
    addresses = next(",".join(place.addresses) for place in slot_map.shards if place.shard == source)
    with progress(f"moving {len(slots)} slots from shard {source} to shard {to}", total=100, unit="%") as bar:
        operation = Operation.MOVE_SLOTS
        while True:
            try:
                # Asked again with the same id, the source begins nothing twice.
                status = await _ask(addresses, operation, body, move, timeout_s)
                operation, body = Operation.MOVES, b""
                if status is not None:
                    _show(bar, status)
                    if status.phase in _ENDED:
                        return status
            except ConnectionFailed:
                pass  # Whoever leads next carries it on.
            except RequestRefused as refusal:
                if refusal.code in (FrameError.REQUEST_REFUSED, FrameError.WRONG_SHARD):
                    raise InputWrong(f"shard {source} does not move them: {refusal}") from refusal
            await asyncio.sleep(LOOK_S)


def _show(bar: Bar, status: "MoveStatus") -> None:
    bar.update(100 if status.phase in _ENDED else min(int(status.log_percent), 99), 100)


async def _ask(addresses: str, operation: Operation, body: bytes, move: str, timeout_s: float) -> "MoveStatus | None":
    statuses = await ask_moves(addresses, timeout_s, operation, body)
    return next((status for status in statuses if status.move == move), None)


async def ask_moves(
    addresses: str, timeout_s: float, operation: Operation = Operation.MOVES, body: bytes = b""
) -> "list[MoveStatus]":
    """What the leader of a shard tells of the moves out of it. Raises `ConnectionFailed`, `RequestRefused`."""
    from bezant.net.client.connection import TcpChannel
    from bezant.protocol.messages import decode_message
    from bezant.protocol.moves import Moves

    channel = await TcpChannel.open(addresses, timeout_s)
    try:
        return decode_message(await channel.request(operation, body, timeout_s), Moves).moves
    finally:
        await channel.close()


async def moves_under_way(slot_map: "SlotMap", timeout_s: float) -> list[dict[str, Any]]:
    """The moves that have not ended, of all shards whose leaders answer."""

    async def ask(addresses: list[str]) -> "list[MoveStatus]":
        try:
            return await ask_moves(",".join(addresses), timeout_s)
        except BezantError:
            return []  # `bezant shards` says of each shard what is wrong with it.

    answers = await asyncio.gather(*(ask(place.addresses) for place in slot_map.shards))
    return [
        {
            "move": status.move,
            "from_shard": place.shard,
            "to_shard": status.to,
            "slots": status.slots,
            "phase": status.phase,
            "log_percent": status.log_percent,
            "problem": status.problem,
        }
        for place, answer in zip(slot_map.shards, answers, strict=True)
        for status in answer
        if status.phase not in _ENDED
    ]
