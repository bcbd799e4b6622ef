"""Claim: all first members of a group begin the same log, to the byte; every other folder is a different disk."""

import json
import os
import uuid
from pathlib import Path
from typing import Final

import pytest

from bezant.engine import node_file
from bezant.engine.node_file import (
    NODE_NAME,
    NodeFile,
    added_member,
    first_entry,
    first_timestamp_ns,
    joining_node,
    log_id_of,
    new_cluster_id,
    new_group_node,
    parse_cluster_id,
    read_node_file,
    remark_on_voters,
    write_node_file,
)
from bezant.protocol.errors import CorruptLog, StorageError, UnsupportedFormat, UsageError
from bezant.protocol.messages import INCARNATION_MAX, ChangeMembers, Member, encode_message

CLUSTER: Final = "019ac3f2-7c00-7abc-8def-0123456789ab"
INCARNATIONS: Final = [1062489298316502636, 8587974135854920874, 7279600870747631198]
ADDRESSES: Final = {number: (f"h{number}:7421", f"h{number}:7420") for number in (1, 2, 3)}


def first_member(node_id: int, **changes: object) -> NodeFile:
    return new_group_node(
        **{"cluster_id": CLUSTER, "node_id": node_id, "members": ADDRESSES} | changes,  # type: ignore[arg-type]
    )


# ---- identity ----


def test_all_first_members_begin_the_same_log() -> None:
    """In whatever order, and with whatever letters, they were told of each other."""
    shuffled = {number: ADDRESSES[number] for number in (3, 1, 2)}
    nodes = [first_member(1), first_member(2, members=shuffled), first_member(3, cluster_id=CLUSTER.upper())]
    assert {node.node_id for node in nodes} == {1, 2, 3}
    assert len({encode_message(first_entry(node)) for node in nodes}) == 1
    assert len({log_id_of(node, 0) for node in nodes}) == 1
    assert {first_timestamp_ns(node) for node in nodes} == {0x019AC3F27C00 * 1_000_000}


def test_the_first_entry_says_who_they_are() -> None:
    node = first_member(2)
    configuration = first_entry(node).configuration
    assert configuration is not None
    assert configuration.members == node.members
    assert configuration.voters == [1, 2, 3]
    assert configuration.learners == configuration.voters_outgoing == []
    assert node.member == configuration.members[1]
    assert node.member == Member(2, node.incarnation, "h2:7421", "h2:7420")


def test_the_derivation_is_frozen() -> None:
    """A node that was initialised by another version must come out the same."""
    node = first_member(1, members={1: ADDRESSES[1]})
    assert [member.incarnation for member in first_member(1).members] == INCARNATIONS
    assert node.incarnation == INCARNATIONS[0]


def test_a_group_that_begins_differently_has_another_log(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = ADDRESSES | {3: ("h4:7421", "h4:7420")}
    fewer = {number: ADDRESSES[number] for number in (1, 2)}
    others = [
        first_member(1, cluster_id=new_cluster_id()),
        first_member(1, members=moved),
        first_member(1, members=fewer),
    ]
    ids = {log_id_of(node, 0) for node in (first_member(1), *others)} | {log_id_of(first_member(1), 1)}
    monkeypatch.setattr(node_file, "created_by", lambda: "bezant 9.9.9")
    ids.add(log_id_of(first_member(1), 0))
    assert len(ids) == 6
    assert all(0 < log_id <= INCARNATION_MAX for log_id in ids)


def test_incarnations_differ_by_node_and_group() -> None:
    ours = {member.incarnation for member in first_member(1).members}
    theirs = {member.incarnation for member in first_member(1, cluster_id=new_cluster_id()).members}
    assert len(ours | theirs) == 6


def test_a_disk_that_joins_is_one_that_never_was() -> None:
    nodes = [joining_node(3, ["h1:7420"], peer_address="h3:7421", client_address="h3:7420") for _ in range(50)]
    incarnations = {node.incarnation for node in nodes}
    assert len(incarnations) == 50
    assert not incarnations & {member.incarnation for member in first_member(1).members}
    with pytest.raises(UsageError, match="node 3 joins a group that exists, and does not begin its log"):
        first_entry(nodes[0])


def test_a_new_cluster_id_is_of_version_7_and_of_now() -> None:
    identifier = parse_cluster_id(new_cluster_id())
    assert identifier.version == 7
    assert str(identifier) != new_cluster_id()


# ---- what is no group ----


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"node_id": 4}, "node 4 is none of the members: 1, 2, 3"),
        ({"cluster_id": "nonsense"}, "a cluster id is a UUID of version 7, not 'nonsense'"),
        ({"cluster_id": str(uuid.UUID(int=7))}, "is none: let `bezant init` make one"),
        ({"cluster_id": str(uuid.uuid4())}, "is none: let `bezant init` make one"),
        ({"cluster_id": "ffffffff-ffff-7000-8000-000000000000"}, "hours ahead.+see to the clocks"),
        ({"node_id": 0, "members": {0: ("a:1", "a:2")}}, "the id of a node is 1 to 2147483647, not 0"),
        ({"members": {n: (f"h{n}:1", f"h{n}:2") for n in range(1, 17)}}, "15 members at most, not 16"),
        ({"members": {1: ("a:1", "a:1")}}, "the address a:1 is given twice"),
        ({"members": {1: ("a:1", "a:2"), 2: ("a:1", "b:2")}}, "the address a:1 is given twice"),
        ({"members": {1: ("a", "a:2")}}, "written HOST:PORT, not 'a'"),
        ({"members": {1: ("a:0", "a:2")}}, "written HOST:PORT, not 'a:0'"),
        ({"members": {1: ("a:1", "a:65536")}}, "written HOST:PORT, not 'a:65536'"),
        ({"members": {1: ("a:1", ":2")}}, "written HOST:PORT, not ':2'"),
        ({"members": {1: ("a:1", "a:٢")}}, "written HOST:PORT"),
    ],
)
def test_what_is_no_group_is_refused_in_words(changes: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        first_member(**{"node_id": 1} | changes)


@pytest.mark.parametrize(
    ("node_id", "join", "peer", "why"),
    [
        (1, [], "a:1", "an address of the group to join is needed"),
        (1, ["b"], "a:1", "not 'b'"),
        (1, ["b:1"], "a", "not 'a'"),
        (0, ["b:1"], "a:1", "not 0"),
    ],
)
def test_what_cannot_join_is_refused_in_words(node_id: int, join: list[str], peer: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        joining_node(node_id, join, peer_address=peer, client_address="a:2")


def test_who_is_let_in_is_a_member() -> None:
    change = ChangeMembers("add", 4, 5, "h4:7421", "h4:7420")
    assert added_member(change) == Member(4, 5, "h4:7421", "h4:7420")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (ChangeMembers("add", 4), "written HOST:PORT, not ''"),
        (ChangeMembers("add", 4, 5, "h4:7421", "h4"), "not 'h4'"),
        (ChangeMembers("add", 4, 0, "h4:7421", "h4:7420"), "the incarnation of a node is 1 to"),
        (ChangeMembers("add", -4, 5, "h4:7421", "h4:7420"), "the id of a node is 1 to"),
    ],
)
def test_who_cannot_be_let_in_is_told_why(change: ChangeMembers, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        added_member(change)


@pytest.mark.parametrize(("count", "told"), [(1, ""), (3, ""), (5, ""), (2, "the loss of 0"), (4, "the loss of 1")])
def test_an_even_number_of_voters_is_remarked_on(count: int, told: str) -> None:
    remark = remark_on_voters(count)
    assert told in remark
    assert bool(remark) is not bool(count % 2)


# ---- the file ----


@pytest.mark.parametrize(
    "node",
    [first_member(2), joining_node(4, ["h1:1", "h2:1"], peer_address="[::1]:7421", client_address="h4:1")],
    ids=["first", "joining"],
)
def test_a_file_comes_back_as_it_was(tmp_path: Path, node: NodeFile) -> None:
    data = tmp_path / "deep" / "data"
    assert read_node_file(data) is None
    write_node_file(data, node)
    assert read_node_file(data) == node
    assert [path.name for path in data.iterdir()] == [NODE_NAME]


def test_an_empty_folder_has_no_node_file(tmp_path: Path) -> None:
    assert read_node_file(tmp_path) is None


def test_a_folder_is_initialised_once(tmp_path: Path) -> None:
    write_node_file(tmp_path, first_member(2))
    with pytest.raises(
        UsageError, match=r"is initialised already; start it: bezant serve --data .*move the folder away"
    ):
        write_node_file(tmp_path, first_member(1))
    assert read_node_file(tmp_path) == first_member(2)


@pytest.mark.parametrize("name", ["shard-0000", "lock", "lost+found"])
def test_a_folder_that_holds_anything_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=f"is not empty \\('{name.replace('+', '.')}' is in it\\)"):
        write_node_file(tmp_path, first_member(2))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_a_crash_left_of_an_earlier_attempt_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / f"{NODE_NAME}.new").write_bytes(b"{")
    assert read_node_file(tmp_path) is None
    write_node_file(tmp_path, first_member(2))
    assert [path.name for path in tmp_path.iterdir()] == [NODE_NAME]


def test_file_and_folder_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        names = sorted(path.name for path in (tmp_path / "data").iterdir()) if (tmp_path / "data").exists() else []
        done.append(f"{Path(f'/proc/self/fd/{descriptor}').readlink().name}: {', '.join(names)}")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_node_file(tmp_path / "data", first_member(2))
    assert done == [f"{tmp_path.name}: ", "node.new: node.new", "data: node"]


def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="the folder cannot be made"):
        write_node_file(tmp_path / "file" / "data", first_member(2))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda node: node.pop("incarnation"), "missing required field `incarnation`"),
        (lambda node: node.update(incarnation=5), "node 2 with incarnation 5 is none of the members"),
        (lambda node: node.update(node_id=4), "node 4 with incarnation"),
        (lambda node: node.update(join=["a:1"]), "either a cluster_id and members, or addresses to join"),
        (lambda node: node.update(cluster_id=""), "either a cluster_id and members, or addresses to join"),
        (lambda node: node.update(clientaddress="a:1"), "unknown field `clientaddress`"),
        (lambda node: node["members"][0].update(node_id=0), "the id of a node is 1 to"),
    ],
)
def test_a_file_that_was_changed_is_refused_in_words(tmp_path: Path, change, why: str) -> None:
    write_node_file(tmp_path, first_member(2))
    node = json.loads((tmp_path / NODE_NAME).read_bytes())
    change(node)
    (tmp_path / NODE_NAME).write_text(json.dumps(node))
    with pytest.raises(CorruptLog, match=f"node is not as `bezant init` wrote it: .*{why}"):
        read_node_file(tmp_path)


@pytest.mark.parametrize("encoded", [b"", b"{", b"[]", b"\xff", b'{"format":"1"}', b"[" * 100_000])
def test_what_is_no_node_file_is_refused_in_words(tmp_path: Path, encoded: bytes) -> None:
    (tmp_path / NODE_NAME).write_bytes(encoded)
    with pytest.raises(CorruptLog, match="node is not as `bezant init` wrote it"):
        read_node_file(tmp_path)


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / NODE_NAME).write_bytes(b'{"format":2,"who_knows":[]}')
    with pytest.raises(UnsupportedFormat, match="node has format 2; this version of Bezant reads up to 1"):
        read_node_file(tmp_path)
