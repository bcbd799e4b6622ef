"""`bezant init`: says whom a data folder belongs to, before a node of a group is started on it for the first time."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bezant.cli.errors import InputWrong
from bezant.cli.output import write_json, write_line, write_remark
from bezant.cli.session import add_json_argument, address, addresses, placement, positive_count
from bezant.protocol.errors import UsageError
from bezant.protocol.placement import METADATA_SHARD, SHARD_MAX

if TYPE_CHECKING:
    from bezant.engine.node_file import NodeFile

MEMBERS_EXAMPLE: Final = "1=10.0.0.1:7421/10.0.0.1:7420,2=10.0.0.2:7421/10.0.0.2:7420"

Places = dict[int, tuple[str, str]]
"""(peer address, client address) by node id."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant init`."""
    parser = subparsers.add_parser(
        "init",
        description="Initialise the data folder of a node, once: as one of the first members of a new group, or as a "
        "blank disk for a group that exists. A node that is to be alone needs none of this.",
    )
    parser.add_argument(
        "--data", metavar="DIR", type=Path, required=True, help="the data folder; it is empty or not there"
    )
    parser.add_argument(
        "--node", metavar="N", type=positive_count, required=True, help="the number of this node, one of its own"
    )
    ways = parser.add_mutually_exclusive_group(required=True)
    ways.add_argument(
        "--members",
        metavar="N=HOST:PEERPORT/HOST:CLIENTPORT,...",
        type=member_list,
        help=f"all nodes of a new group, this one too, the same on each, such as {MEMBERS_EXAMPLE}",
    )
    ways.add_argument(
        "--join",
        metavar="HOST:PORT,...",
        type=lambda text: addresses(text).split(","),
        help="where clients reach nodes of the group that this one is to join",
    )
    parser.add_argument(
        "--cluster-id",
        metavar="UUID",
        help="with --members: the id of the new group, the same on each of its nodes; one node alone makes it",
    )
    parser.add_argument(
        "--listen", metavar="HOST:PORT", type=address, help="with --join: where clients reach this node"
    )
    parser.add_argument(
        "--listen-peers", metavar="HOST:PORT", type=address, help="with --join: where the other nodes reach this one"
    )
    parser.add_argument(
        "--shard",
        metavar="S",
        type=shard_number,
        default=0,
        help=f"the number of the shard that the group is, if it is one of several: 0 to {SHARD_MAX}; {METADATA_SHARD}"
        " is the metadata group, which keeps the slot map (default: 0)",
    )
    parser.add_argument(
        "--placement",
        metavar="PLACES",
        type=placement,
        default=[],
        help="if the group is one of several: where slot maps are kept, HOST:PORT,... of the metadata group or"
        " zookeeper://HOST:PORT,.../PATH",
    )
    add_json_argument(parser)


def shard_number(text: str) -> int:
    """Read the number of a shard; for argparse, which reports the error."""
    if not (text.isascii() and text.isdigit() and int(text) <= METADATA_SHARD):
        raise argparse.ArgumentTypeError(f"the number of a shard is 0 to {METADATA_SHARD}, not {text!r}")
    return int(text)


def member_list(text: str) -> Places:
    """Read ``1=HOST:PEERPORT/HOST:CLIENTPORT,2=...``; for argparse, which reports the error."""
    places: Places = {}
    for one in text.split(","):
        number, equals, addresses = one.strip().partition("=")
        peer_address, slash, client_address = addresses.partition("/")
        if not (equals and slash and number.isascii() and number.isdigit() and len(number) <= 12):
            raise argparse.ArgumentTypeError(f"members are written like {MEMBERS_EXAMPLE}, not {one!r}")
        if int(number) in places:
            raise argparse.ArgumentTypeError(f"node {int(number)} is given twice")
        places[int(number)] = (address(peer_address), address(client_address))
    return places


def run(arguments: argparse.Namespace) -> int:
    """Write the node file."""
    from bezant.engine.node_file import remark_on_voters, write_node_file

    node = _first_member(arguments) if arguments.members is not None else _joining(arguments)
    try:
        write_node_file(arguments.data, node)
    except UsageError as error:
        raise InputWrong(str(error)) from error
    if remark := remark_on_voters(len(node.members)) if node.members else "":
        write_remark(f"bezant: {remark}")
    if arguments.json:
        import msgspec

        write_json(msgspec.to_builtins(node))
    else:
        _tell(node, arguments.data)
    return 0


def _first_member(arguments: argparse.Namespace) -> "NodeFile":
    from bezant.engine.node_file import new_cluster_id, new_group_node

    if arguments.listen is not None or arguments.listen_peers is not None:
        raise UsageError("--listen and --listen-peers go with --join; with --members they stand there")
    cluster_id = arguments.cluster_id
    if cluster_id is None:
        cluster_id = new_cluster_id()
        if len(arguments.members) > 1:
            raise UsageError(
                "all nodes of a new group must be given the same id, whichever it is: for example "
                f"--cluster-id {cluster_id}"
            )
    return new_group_node(
        cluster_id, arguments.node, arguments.members, shard=arguments.shard, placement=arguments.placement
    )


def _joining(arguments: argparse.Namespace) -> "NodeFile":
    from bezant.engine.node_file import joining_node

    if arguments.cluster_id is not None:
        raise UsageError("--cluster-id goes with --members; a node that joins learns of its group from the leader")
    if arguments.listen is None or arguments.listen_peers is None:
        raise UsageError("--join needs --listen and --listen-peers: where clients and nodes will reach this one")
    return joining_node(
        arguments.node,
        arguments.join,
        peer_address=arguments.listen_peers,
        client_address=arguments.listen,
        shard=arguments.shard,
        placement=arguments.placement,
    )


def _tell(node: "NodeFile", data: Path) -> None:
    if node.members:
        write_line(f"node {node.node_id} of {len(node.members)}, cluster {node.cluster_id}")
        if len(node.members) > 1:
            write_line("initialise the other nodes with the same --members and --cluster-id")
        write_line(f"start it: bezant serve --data {data}")
        return
    write_line(f"node {node.node_id}, to join the group at {', '.join(node.join)}")
    write_line(f"start it: bezant serve --data {data}")
    connect = f"--connect {','.join(node.join)}"
    write_line(f"it has itself let in, as a learner; let it vote: bezant members promote {node.node_id} {connect}")
    write_line(f"if the group knows it on a disk that is lost: bezant members replace {node.node_id} {connect}")
