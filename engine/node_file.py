"""The node file: who a data folder belongs to, written once by `bezant init`, in JSON.

All nodes of a new group are given the same cluster id and members, and each makes the first entry of the log out of
them by itself, the same to the byte. So nothing in it may depend on the node or the moment: its time is that of the
cluster id, and the incarnations of the first members are derived from it. The number of the log covers the whole first
entry; nodes that were told different members, or are of versions that would begin differently, have different logs and
refuse to talk to each other.

A folder that is initialised to join a group that exists draws its incarnation: it is another disk than any before it.
"""

import secrets
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import blake3
import msgspec

from bezant.engine.created_by import created_by
from bezant.engine.log.storage import Directory
from bezant.protocol.currencies import ISO_4217
from bezant.protocol.errors import CorruptLog, StorageError, UnsupportedFormat, UsageError
from bezant.protocol.messages import (
    INCARNATION_MAX,
    ChangeMembers,
    Configuration,
    ControlEntry,
    Currency,
    Member,
    encode_message,
)
from bezant.protocol.names import IdMaker
from bezant.protocol.placement import METADATA_SHARD
from bezant.protocol.records import RULES_VERSION

NODE_NAME: Final = "node"
NODE_FORMAT_VERSION: Final = 1
CLUSTER_ID_AHEAD_MS_MAX: Final = 86_400_000
"""How far in the future a cluster id may have been made: the ledger's time begins there, and never goes back."""
_FILE_SIZE_MAX: Final = 1 << 20
_LOG_ID_CONTEXT: Final = "bezant: the log id of a group"
_INCARNATION_CONTEXT: Final = "bezant: the incarnation of a first member"
_PORT_MAX: Final = 65_535
_NS_PER_MS: Final = 1_000_000


class NodeFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who a data folder belongs to.

    A first member of a group knows its ``cluster_id`` (a UUID of version 7) and the first ``members``. Any other node
    has ``join``, client addresses of the group, and learns the rest from its leader.

    ``shard`` is that of the group. ``placement`` says where slot maps are kept, if the group is one of several: client
    addresses of the metadata group, or one ``zookeeper://`` address. What says nothing is left out of the file.
    """

    format: int
    node_id: int
    incarnation: int
    client_address: str
    peer_address: str
    cluster_id: str
    members: list[Member]
    join: list[str]
    created_at: str
    created_by: str
    shard: int = 0
    placement: list[str] = []

    def __post_init__(self) -> None:
        """Raises ValueError for a file that was put together wrongly."""
        own = [member for member in self.members if member.node_id == self.node_id]
        if bool(self.members) == bool(self.join) or bool(self.members) != bool(self.cluster_id):
            raise ValueError("a node file has either a cluster_id and members, or addresses to join")
        if self.members and [member.incarnation for member in own] != [self.incarnation]:
            raise ValueError(f"node {self.node_id} with incarnation {self.incarnation} is none of the members")
        if not 0 <= self.shard <= METADATA_SHARD:
            raise ValueError(f"the number of a shard is 0 to {METADATA_SHARD}, not {self.shard}")
        if self.placement and self.shard == METADATA_SHARD:
            raise ValueError("a metadata group keeps the slot map itself: it has no placement")
        if self.shard not in (0, METADATA_SHARD) and not self.placement:
            raise ValueError(f"a node of shard {self.shard} needs to know where slot maps are kept: its placement")

    @property
    def member(self) -> Member:
        """This node as a member of its group."""
        return Member(self.node_id, self.incarnation, self.peer_address, self.client_address)


def new_group_node(
    cluster_id: str,
    node_id: int,
    members: dict[int, tuple[str, str]],
    *,
    shard: int = 0,
    placement: Sequence[str] = (),
) -> NodeFile:
    """The node file of one of the first members of a group; `members` has (peer address, client address) by node id.

    Raises `UsageError` for what is no group.
    """
    if node_id not in members:
        raise UsageError(f"node {node_id} is none of the members: {', '.join(str(other) for other in sorted(members))}")
    identifier = parse_cluster_id(cluster_id)
    for peer_address, client_address in members.values():
        check_address(peer_address)
        check_address(client_address)
    try:
        made = [
            Member(other, _incarnation_of(identifier, other), *addresses)
            for other, addresses in sorted(members.items())
        ]
        Configuration(made, sorted(members))
    except (ValueError, OverflowError) as error:
        raise UsageError(str(error)) from error
    own = next(member for member in made if member.node_id == node_id)
    return _node_file(own, cluster_id=str(identifier), members=made, join=[], shard=shard, placement=placement)


def joining_node(
    node_id: int,
    join: list[str],
    *,
    peer_address: str,
    client_address: str,
    shard: int = 0,
    placement: Sequence[str] = (),
) -> NodeFile:
    """The node file of a blank disk for a group that exists. Raises `UsageError` for what cannot be a node."""
    for address in (*join, peer_address, client_address):
        check_address(address)
    if not join:
        raise UsageError("an address of the group to join is needed")
    try:
        own = Member(node_id, 1 + secrets.randbelow(INCARNATION_MAX), peer_address, client_address)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return _node_file(own, cluster_id="", members=[], join=join, shard=shard, placement=placement)


def _node_file(
    own: Member, *, cluster_id: str, members: list[Member], join: list[str], shard: int, placement: Sequence[str]
) -> NodeFile:
    try:
        return NodeFile(
            format=NODE_FORMAT_VERSION,
            node_id=own.node_id,
            incarnation=own.incarnation,
            client_address=own.client_address,
            peer_address=own.peer_address,
            cluster_id=cluster_id,
            members=members,
            join=join,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            created_by=created_by(),
            shard=shard,
            placement=list(placement),
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


# ---- what all first members derive alike ----


def new_cluster_id() -> str:
    """A new cluster id: a UUID of version 7. Not for clients: the number of the log is made from it."""
    return str(uuid.UUID(bytes=IdMaker().make()))


def parse_cluster_id(text: str) -> uuid.UUID:
    """Read a cluster id. Raises `UsageError` unless it is a UUID of version 7 whose time has come."""
    try:
        identifier = uuid.UUID(text)
    except ValueError:
        raise UsageError(f"a cluster id is a UUID of version 7, not {text!r}") from None
    if identifier.version != 7 or identifier.variant != uuid.RFC_4122:
        raise UsageError(f"a cluster id is a UUID of version 7, and {text} is none: let `bezant init` make one")
    ahead_ms = _milliseconds(identifier) - int(datetime.now(UTC).timestamp() * 1000)
    if ahead_ms > CLUSTER_ID_AHEAD_MS_MAX:
        raise UsageError(
            f"the cluster id {text} is of a time {ahead_ms // 3_600_000:,} hours ahead, and the ledger's time would "
            "begin there: see to the clocks, and let `bezant init` make another"
        )
    return identifier


def first_entry(node: NodeFile) -> ControlEntry:
    """The first entry of the log of a group, the same on all its first members. Raises `UsageError` on other nodes."""
    if not node.members:
        raise UsageError(f"node {node.node_id} joins a group that exists, and does not begin its log")
    return first_control(node.created_by, Configuration(node.members, [member.node_id for member in node.members]))


class FirstEntry(NamedTuple):
    """What a new log begins with, the same for all first members of a group: its first entry, and the log's number.

    Without an entry the log begins empty, and its first entry comes from a leader; ``log_id`` 0: whatever the log has.
    """

    control: ControlEntry | None
    timestamp_ns: int
    log_id: int


def first_control(created_by: str, configuration: Configuration | None = None) -> ControlEntry:
    """What the first entry of every log says; one without a configuration is that of a node alone."""
    return ControlEntry(
        currencies=[Currency(code, decimals) for code, decimals in ISO_4217.items()],
        rules_version=RULES_VERSION,
        created_by=created_by,
        configuration=configuration,
    )


def first_timestamp_ns(node: NodeFile) -> int:
    """The time of that entry: when the cluster id was made."""
    return _milliseconds(uuid.UUID(node.cluster_id)) * _NS_PER_MS


def log_id_of(node: NodeFile, shard: int, first_body: bytes | memoryview | None = None) -> int:
    """The number of the log of a shard: 63 bits, above zero, different for groups that begin differently.

    `first_body`: the body of the first entry of a log that is there. A later version would begin another one.
    """
    body = encode_message(first_entry(node)) if first_body is None else bytes(first_body)
    material = uuid.UUID(node.cluster_id).bytes + shard.to_bytes(2, "little") + body
    return _positive(material, _LOG_ID_CONTEXT)


def _incarnation_of(identifier: uuid.UUID, node_id: int) -> int:
    return _positive(identifier.bytes + node_id.to_bytes(8, "little"), _INCARNATION_CONTEXT)


def _positive(material: bytes, context: str) -> int:
    digest = blake3.blake3(material, derive_key_context=context).digest(length=8)
    return int.from_bytes(digest, "little") & INCARNATION_MAX or 1


def _milliseconds(identifier: uuid.UUID) -> int:
    return identifier.int >> 80


# ---- words about groups ----


def remark_on_voters(count: int) -> str:
    """What to know about a group of so many voters; "" if nothing."""
    if count % 2:
        return ""
    return f"{count} voters survive the loss of {(count - 1) // 2}, no more than {count - 1} would: use an odd number"


def check_address(address: str) -> None:
    """Raise `UsageError` unless an address is HOST:PORT, with a port that others can connect to."""
    host, separator, port = address.rpartition(":")
    if not (separator and host and port.isascii() and port.isdecimal() and 0 < int(port) <= _PORT_MAX):
        raise UsageError(f"an address that others connect to is written HOST:PORT, not {address!r}")


def added_member(change: ChangeMembers) -> Member:
    """The member that an "add" asks for. Raises `UsageError`, in words, for one that cannot be."""
    check_address(change.peer_address)
    check_address(change.client_address)
    try:
        return Member(change.node_id, change.incarnation, change.peer_address, change.client_address)
    except ValueError as error:
        raise UsageError(str(error)) from error


# ---- the file ----


def write_node_file(data: Path, node: NodeFile) -> None:
    """Write the node file of a folder that is empty or not there, durably. Raises `UsageError`, `StorageError`."""
    directory = Directory(data)
    try:
        if data.is_dir():
            directory.remove_unfinished()
        found = sorted(path.name for path in data.iterdir()) if data.is_dir() else []
    except OSError as error:
        raise StorageError(f"{data}: cannot be looked at: {error.strerror}") from error
    if NODE_NAME in found:
        raise UsageError(
            f"{data} is initialised already; start it: bezant serve --data {data}. To begin again with a blank disk, "
            "move the folder away first"
        )
    if found:
        raise UsageError(f"{data} is not empty ({found[0]!r} is in it): give a folder that is empty or not there")
    directory.create()
    encoded = msgspec.json.format(msgspec.json.encode(node), indent=2) + b"\n"
    directory.write_file(NODE_NAME, [encoded])


def read_node_file(data: Path) -> NodeFile | None:
    """The node file of a folder; None if there is none: a node alone. Raises `CorruptLog` and `UnsupportedFormat`."""
    directory = Directory(data)
    if not data.is_dir() or NODE_NAME not in directory.names():
        return None
    path = data / NODE_NAME
    file = directory.open(NODE_NAME, writable=False)
    try:
        encoded = file.read(_FILE_SIZE_MAX, 0)
    finally:
        file.close()
    try:
        found = msgspec.json.decode(encoded, type=_Format).format
        if found > NODE_FORMAT_VERSION:
            raise UnsupportedFormat(
                f"{path} has format {found}; this version of Bezant reads up to {NODE_FORMAT_VERSION}: start the newer "
                "version that wrote it"
            )
        return msgspec.json.decode(encoded, type=NodeFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptLog(f"{path} is not as `bezant init` wrote it: {error}. Restore the file from a copy") from error


def shard_of_folder(data: Path) -> int:
    """The shard whose log a data folder has: what its node file says, else 0. Raises as `read_node_file` does."""
    node = read_node_file(data)
    return 0 if node is None else node.shard


def likely_shard_of_folder(data: Path) -> int:
    """The same; the first shard if the node file cannot be read, which a start will tell."""
    try:
        return shard_of_folder(data)
    except StorageError:
        return 0


class _Format(msgspec.Struct):
    """The one field that every version of the file has."""

    format: int
