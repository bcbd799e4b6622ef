"""`bezant members`: shows the nodes of a group, and changes who they are.

Every change goes through the group's log; the command returns when it is committed. It may be repeated: what is in
force already is answered as done.
"""

import argparse
import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bezant.cli.errors import CommandFailed, InputWrong
from bezant.cli.output import write_json, write_line, write_remark, write_table
from bezant.cli.session import (
    DEFAULT_ADDRESS,
    add_json_argument,
    address,
    addresses,
    positive_count,
    positive_seconds,
    run_async,
)
from bezant.protocol.errors import RequestTimedOut

if TYPE_CHECKING:
    from bezant.protocol.messages import ChangeMembers, MembersChanged, MembersStatus, MemberStatus

DEFAULT_TIMEOUT_S: Final = 30.0
"""A change waits for the majority."""
CATCH_UP_TIMEOUT_S: Final = 600.0
"""A promotion waits until the learner has caught up; a blank disk gets the whole history first."""
POLL_S: Final = 0.2
"""Between two looks at whether a node has come."""
_NS_PER_MS: Final = 1e6
_ACTIONS: Final = {
    "add": "let a node in that was initialised with `bezant init --join`; it learns, and does not vote yet",
    "remove": "put a node out of the group",
    "promote": "let a learner vote, once it has caught up",
    "replace": "put the lost disk of a node out of the group, wait for its new one, initialised with `bezant init"
    " --join` and started, and let that vote when it has caught up; the short way to remove, add and promote",
    "demote": "make a voter a learner",
    "transfer": "have another voter lead",
}
_DONE: Final = {
    "add": "node {node} is a learner; let it vote: bezant members promote {node}",
    "remove": "node {node} is no member any more: stop it",
    "promote": "node {node} votes",
    "replace": "node {node} votes, on its new disk",
    "demote": "node {node} does not vote any more",
    "transfer": "node {leader} leads",
}
_HEADINGS: Final = (
    "node", "role", "voting", "clients", "active", "term", "match", "lag", "history", "clock", "problem",
)  # fmt: skip
_RIGHT: Final = frozenset({"node", "term", "match", "lag", "history", "clock"})


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant members`."""
    parser = subparsers.add_parser("members", description="Show the nodes of a group, or change who they are.")
    actions = parser.add_subparsers(dest="action", metavar="|".join(("status", *_ACTIONS, "recover")), required=True)
    recover = actions.add_parser(
        "recover",
        description="When a majority of the voters is gone for ever: have the node of a data folder, which is stopped,"
        " go on alone with what it has. What it never got is lost, acknowledged or not. The others must not come back"
        " but on new data folders, by `bezant init --join`.",
    )
    recover.add_argument("--data", metavar="DIR", type=Path, required=True, help="the data folder of the node")
    recover.add_argument(
        "--node", metavar="N", type=positive_count, required=True, help="the number of the node, to be sure"
    )
    recover.add_argument(
        "--i-accept-that-acknowledged-transfers-may-be-lost", dest="accepted", action="store_true", required=True
    )
    add_json_argument(recover)
    status = actions.add_parser("status", description="Show the nodes of a group, as its leader sees them.")
    _add_connect_arguments(status)
    for name, summary in _ACTIONS.items():
        action = actions.add_parser(name, description=f"{summary[0].upper()}{summary[1:]}.")
        action.add_argument("node", metavar="NODE", type=positive_count, help="the number of the node")
        if name == "add":
            action.add_argument(
                "--incarnation",
                metavar="N",
                type=_incarnation,
                required=True,
                help="of its disk, as `bezant init` told it",
            )
            action.add_argument("--peer", metavar="HOST:PORT", type=address, required=True, help="where nodes reach it")
            action.add_argument(
                "--client", metavar="HOST:PORT", type=address, required=True, help="where clients reach it"
            )
            action.add_argument("--promote", action="store_true", help="let it vote, too, as soon as it has caught up")
        action.add_argument(
            "--expected-term", metavar="N", type=positive_count, default=0, help="refuse it in any other term than this"
        )
        _add_connect_arguments(action)


def _add_connect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--connect",
        metavar="HOST:PORT,...",
        type=lambda text: addresses(text).split(","),
        default=[DEFAULT_ADDRESS],
        help=f"nodes of the group to ask; the leader is found by way of them (default: {DEFAULT_ADDRESS})",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        dest="timeout_s",
        type=positive_seconds,
        help=f"how long to wait for it (default: {DEFAULT_TIMEOUT_S:g}; {CATCH_UP_TIMEOUT_S:g} for a node to catch up)",
    )
    add_json_argument(parser)


def _incarnation(text: str) -> int:
    """Read a whole number of 63 bits above zero; for argparse."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and 0 < int(text) < 1 << 63):
        raise argparse.ArgumentTypeError(f"a whole number from 1 to 2^63 - 1 is needed, not {text!r}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Show or change."""
    if arguments.action == "recover":
        return _recover(arguments)
    if arguments.action == "status":
        return run_async(_status(arguments))
    return run_async(_change(arguments))


def _timeout_s(arguments: argparse.Namespace) -> float:
    """How long all of it may take."""
    if arguments.timeout_s is not None:
        return float(arguments.timeout_s)
    is_long = arguments.action in {"promote", "replace"} or getattr(arguments, "promote", False)
    return CATCH_UP_TIMEOUT_S if is_long else DEFAULT_TIMEOUT_S


def _recover(arguments: argparse.Namespace) -> int:
    from bezant.engine.going_alone import go_on_alone
    from bezant.engine.node_file import read_node_file

    node = read_node_file(arguments.data)
    if node is None or node.node_id != arguments.node:
        belongs = "no group" if node is None else f"node {node.node_id}"
        raise InputWrong(
            f"{arguments.data} belongs to {belongs}, not to node {arguments.node}", "name that node and its own folder"
        )
    gone = go_on_alone(arguments.data, node)
    write_remark(f"bezant: {gone.note}")
    if arguments.json:
        write_json(gone._asdict())
        return 0
    write_line(f"node {node.node_id} is the only voter, in term {gone.term}")
    write_line(f"known to be committed: entries up to {gone.committed_index}; its log ends with {gone.last_index}")
    others = [member for member in gone.members_before if member != node.node_id]
    write_line(f"never start again on their disks: {', '.join(f'node {other}' for other in others)}")
    write_line(f"start it: bezant serve --data {arguments.data}; then let new nodes join: bezant init --join")
    return 0


async def _status(arguments: argparse.Namespace) -> int:
    import msgspec

    from bezant.net.client.members import read_members

    status = await read_members(arguments.connect, _timeout_s(arguments))
    if arguments.json:
        write_json(msgspec.to_builtins(status))
    else:
        _tell_status(status)
    return 0


async def _change(arguments: argparse.Namespace) -> int:
    import msgspec

    deadline_s = time.monotonic() + _timeout_s(arguments)
    done = arguments.action
    try:
        if arguments.action == "replace":
            await _await_new_disk(arguments, deadline_s)
            changed = await _ask(arguments, "promote", deadline_s)
        else:
            changed = await _ask(arguments, arguments.action, deadline_s)
            if getattr(arguments, "promote", False):
                done = "promote"
                changed = await _ask(arguments, done, deadline_s)
    except RequestTimedOut as error:
        raise CommandFailed(
            f"{error}; it may be done or not", "see: bezant members status; the command may be repeated"
        ) from error
    if changed.remark:
        write_remark(f"bezant: {changed.remark}")
    if arguments.json:
        write_json(msgspec.to_builtins(changed))
    else:
        write_line(_DONE[done].format(node=arguments.node, leader=changed.leader))
    return 0


async def _ask(arguments: argparse.Namespace, action: str, deadline_s: float) -> "MembersChanged":
    from bezant.net.client.members import change_members

    return await change_members(arguments.connect, change_of(arguments, action), deadline_s - time.monotonic())


async def _await_new_disk(arguments: argparse.Namespace, deadline_s: float) -> None:
    """Put a voter out that is not there any more, and return when a learner has come in its place."""
    from bezant.net.client.members import read_members

    has_told = False
    while True:
        status = await read_members(arguments.connect, max(deadline_s - time.monotonic(), POLL_S))
        member = next((member for member in status.members if member.node_id == arguments.node), None)
        if member is not None and member.voting == "learner":
            return
        if member is not None and member.active:
            raise CommandFailed(f"node {arguments.node} is up, on a disk that votes", "stop it first")
        if member is not None:
            await _ask(arguments, "remove", deadline_s)
        elif not has_told:
            has_told = True
            write_remark(f"bezant: node {arguments.node} is put out; waiting for its new disk: start the node there")
        if time.monotonic() >= deadline_s:
            raise CommandFailed(f"node {arguments.node} is put out, and its new disk has not come in time")
        await asyncio.sleep(POLL_S)


def change_of(arguments: argparse.Namespace, action: Any) -> "ChangeMembers":
    """The request for one of the actions that a command line asks for."""
    from bezant.protocol.messages import ChangeMembers

    is_addition = action == "add"
    return ChangeMembers(
        action=action,
        node_id=arguments.node,
        incarnation=arguments.incarnation if is_addition else 0,
        peer_address=arguments.peer if is_addition else "",
        client_address=arguments.client if is_addition else "",
        expected_term=arguments.expected_term,
    )


def _tell_status(status: "MembersStatus") -> None:
    leads = f"node {status.leader} leads" if status.leader else "no node is known to lead"
    write_line(
        f"{leads} in term {status.term}; committed up to entry {status.commit_index}, says node {status.node_id}"
    )
    if status.joint:
        write_line("a change of voters is under way")
    if status.problem:
        write_line(f"problem: {status.problem}")
    write_table(_HEADINGS, [_row(member) for member in status.members], right=_RIGHT)


def _row(member: "MemberStatus") -> list[str]:
    offset_ns = member.clock_offset_ns
    return [
        str(member.node_id),
        member.role,
        member.voting,
        member.client_address or "-",
        "yes" if member.active else "no",
        _or_dash(member.term or None, "{}"),
        str(member.match_index),
        _lag(member.lag_entries, member.lag_bytes),
        _or_dash(member.history_percent, "{:.1f} %"),
        _or_dash(None if offset_ns is None else offset_ns / _NS_PER_MS, "{:+.1f} ms"),
        member.problem,
    ]


def _lag(entries: int | None, size_bytes: int | None) -> str:
    if entries is None:
        return "-"
    return f"{entries:,}" if size_bytes is None else f"{entries:,} ({size_bytes:,} bytes)"


def _or_dash(value: Any, form: str) -> str:
    return "-" if value is None else form.format(value)
