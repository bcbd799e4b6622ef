"""`bezant shards`: shows which shard has how many slots, where its nodes are and which of them leads.

`bezant shards move` is ``shards_move.py``.
"""

import argparse
import asyncio
from typing import TYPE_CHECKING, Any, Final

from bezant.cli import shards_move
from bezant.cli.errors import InputWrong
from bezant.cli.output import write_json, write_line, write_remark, write_table
from bezant.cli.session import DEFAULT_ADDRESS, add_json_argument, addresses, placement, positive_seconds, run_async
from bezant.protocol.errors import BezantError, ConnectionFailed, RequestRefused, UsageError
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.placement import SHARD_MAX

if TYPE_CHECKING:
    from bezant.protocol.placement import ShardPlace, SlotMap

DEFAULT_TIMEOUT_S: Final = 5.0
_HEADINGS: Final = ("shard", "slots", "leader", "nodes", "problem")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant shards`."""
    parser = subparsers.add_parser(
        "shards",
        description="Show the slot map: which shard has how many slots, where its nodes are and which of them leads.",
    )
    places = parser.add_mutually_exclusive_group()
    places.add_argument(
        "--connect",
        metavar="HOST:PORT,...",
        type=addresses,
        default=DEFAULT_ADDRESS,
        help="nodes of any shard; the map is the one that the first of them goes by (default: %(default)s)",
    )
    places.add_argument(
        "--placement",
        metavar="PLACES",
        type=placement,
        help="show the map that is in force where maps are kept: HOST:PORT,... or zookeeper://HOST:PORT,.../PATH",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        dest="timeout_s",
        type=positive_seconds,
        default=DEFAULT_TIMEOUT_S,
        help="how long to wait for each answer (default: %(default)s)",
    )
    parser.add_argument(
        "--first",
        metavar="S=HOST:PORT,...",
        type=shard_place,
        action="append",
        default=[],
        help="with --placement, once for each shard and where its nodes take clients: put the first map in place, in"
        " which each shard has as many slots as the others, before their nodes are started",
    )
    add_json_argument(parser)
    shards_move.add_parser(parser.add_subparsers(dest="action", metavar="move", required=False), DEFAULT_TIMEOUT_S)


def shard_place(text: str) -> tuple[int, list[str]]:
    """Read ``0=HOST:PORT,HOST:PORT``; for argparse, which reports the error."""
    number, equals, nodes = text.partition("=")
    if not (equals and number.isascii() and number.isdigit() and int(number) <= SHARD_MAX):
        raise argparse.ArgumentTypeError(f"a shard is written like 0=10.0.0.1:7420,10.0.0.2:7420, not {text!r}")
    return int(number), addresses(nodes).split(",")


def run(arguments: argparse.Namespace) -> int:
    """Show the map, put the first one in place, or move slots."""
    if arguments.action == "move":
        return shards_move.run(arguments)
    if arguments.first:
        return run_async(_put_first(arguments))
    return run_async(_show(arguments))


async def _put_first(arguments: argparse.Namespace) -> int:
    from bezant.engine.placement.maps import first_map
    from bezant.net.placement.store import open_store

    if arguments.placement is None:
        raise UsageError("--first goes with --placement: where the map is to be kept")
    shards = dict(arguments.first)
    if len(shards) != len(arguments.first):
        raise UsageError("a shard is given twice")
    wanted = first_map(shards)
    store = open_store(arguments.placement)
    try:
        found = await store.replace(0, wanted)
    finally:
        await store.close()
    if found != wanted:
        raise InputWrong(
            f"there is a slot map already, of version {found.version}", "see it: bezant shards --placement ..."
        )
    write_remark(f"bezant: the first slot map is in place; start the nodes of the {len(shards)} shards")
    return 0


async def _show(arguments: argparse.Namespace) -> int:
    slot_map = await _read_map(arguments)
    rows = await asyncio.gather(*(_describe(place, slot_map, arguments.timeout_s) for place in slot_map.shards))
    moves = await shards_move.moves_under_way(slot_map, arguments.timeout_s)
    if arguments.json:
        write_json({"map_version": slot_map.version, "shards": rows, "moves": moves})
        return 0
    cells = [
        (str(row["shard"]), str(row["slots"]), row["leader"] or "-", ",".join(row["nodes"]), row["problem"])
        for row in rows
    ]
    write_table(_HEADINGS, cells, right=frozenset({"shard", "slots"}))
    write_line(f"version {slot_map.version} of the slot map")
    for move in moves:
        write_line(
            f"{move['slots']} slots move from shard {move['from_shard']} to shard {move['to_shard']}: {move['phase']}, "
            f"{move['log_percent']:.0f} % of the log read" + (f"; {move['problem']}" if move["problem"] else "")
        )
    return 0


async def _read_map(arguments: argparse.Namespace) -> "SlotMap":
    """The map in force, or the one that a node goes by. Raises `BezantError` for where there is none."""
    if arguments.placement is not None:
        from bezant.net.placement.store import open_store

        store = open_store(arguments.placement)
        try:
            found = await store.read()
        finally:
            await store.close()
        if found is None:
            raise InputWrong("there is no slot map yet")
        return found
    return await ask_map(arguments.connect.split(","), arguments.timeout_s)


class NoSlotMap(InputWrong):
    """The group that was asked has every slot, or keeps maps and has none yet."""


async def ask_map(nodes: list[str], timeout_s: float) -> "SlotMap":
    """The map that the first node of these that answers goes by. Raises `NoSlotMap`, and `BezantError` if none does."""
    from bezant.net.client.members import ask_node
    from bezant.protocol.messages import decode_message
    from bezant.protocol.placement import SlotMap

    failure: BezantError = ConnectionFailed("no address was given")
    for node in nodes:
        try:
            return decode_message(await ask_node(node, Operation.MAP, b"", timeout_s), SlotMap)
        except RequestRefused as refusal:
            if refusal.code == FrameError.REQUEST_REFUSED:
                raise NoSlotMap(
                    f"the node at {node} says: {refusal}", "see the nodes of its group: bezant members status"
                ) from refusal
            failure = refusal
        except ConnectionFailed as error:
            failure = error
    raise failure


async def _describe(place: "ShardPlace", slot_map: "SlotMap", timeout_s: float) -> dict[str, Any]:
    """One shard: as its own nodes see it, if one answers."""
    from bezant.engine.placement.maps import slot_counts
    from bezant.net.client.members import read_members

    row: dict[str, Any] = {
        "shard": place.shard,
        "slots": slot_counts(slot_map)[place.shard],
        "leader": "",
        "nodes": place.addresses,
        "problem": "",
    }
    try:
        status = await read_members(place.addresses, timeout_s)
    except BezantError as error:
        return row | {"problem": str(error)}
    leader = next((member.client_address for member in status.members if member.node_id == status.leader), "")
    nodes = [member.client_address for member in status.members if member.client_address]
    return row | {
        "leader": leader,
        "nodes": nodes or place.addresses,
        "problem": status.problem or ("" if leader else "no node leads"),
    }
