"""`bezant members`: shows the nodes of a group, and changes who they are.

Every change goes through the group's log; the command returns when it is committed. It may be repeated: what is in
force already is answered as done.
"""

import argparse
from typing import TYPE_CHECKING, Any, Final

from bezant.cli.errors import CommandFailed
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
    from bezant.protocol.messages import ChangeMembers, MembersStatus, MemberStatus

DEFAULT_TIMEOUT_S: Final = 30.0
"""A change waits for the majority and, for a promotion, until the learner has caught up."""
_NS_PER_MS: Final = 1e6
_ACTIONS: Final = {
    "add": "let a node in that was initialised with `bezant init --join`; it learns, and does not vote yet",
    "remove": "put a node out of the group",
    "promote": "let a learner vote, once it has caught up",
    "demote": "make a voter a learner",
    "transfer": "have another voter lead",
}
_DONE: Final = {
    "add": "node {node} is a learner; let it vote: bezant members promote {node}",
    "remove": "node {node} is no member any more: stop it",
    "promote": "node {node} votes",
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
    actions = parser.add_subparsers(dest="action", metavar="|".join(("status", *_ACTIONS)), required=True)
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
        default=DEFAULT_TIMEOUT_S,
        help="how long to wait for it (default: %(default)s)",
    )
    add_json_argument(parser)


def _incarnation(text: str) -> int:
    """Read a whole number of 63 bits above zero; for argparse."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and 0 < int(text) < 1 << 63):
        raise argparse.ArgumentTypeError(f"a whole number from 1 to 2^63 - 1 is needed, not {text!r}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Show or change."""
    if arguments.action == "status":
        return run_async(_status(arguments))
    return run_async(_change(arguments))


async def _status(arguments: argparse.Namespace) -> int:
    import msgspec

    from bezant.net.client.members import read_members

    status = await read_members(arguments.connect, arguments.timeout_s)
    if arguments.json:
        write_json(msgspec.to_builtins(status))
    else:
        _tell_status(status)
    return 0


async def _change(arguments: argparse.Namespace) -> int:
    import msgspec

    from bezant.net.client.members import change_members

    try:
        changed = await change_members(arguments.connect, change_of(arguments), arguments.timeout_s)
    except RequestTimedOut as error:
        raise CommandFailed(
            f"{error}; it may be done or not", "see: bezant members status; the command may be repeated"
        ) from error
    if changed.remark:
        write_remark(f"bezant: {changed.remark}")
    if arguments.json:
        write_json(msgspec.to_builtins(changed))
    else:
        write_line(_DONE[arguments.action].format(node=arguments.node, leader=changed.leader))
    return 0


def change_of(arguments: argparse.Namespace) -> "ChangeMembers":
    """The request that a command line asks for."""
    from bezant.protocol.messages import ChangeMembers

    is_addition = arguments.action == "add"
    return ChangeMembers(
        action=arguments.action,
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
        str(member.term),
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
