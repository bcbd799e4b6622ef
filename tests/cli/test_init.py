"""`bezant init` writes a node file that leads to one group on all its nodes, or says in words why not."""

import json
import re
from pathlib import Path
from typing import Final

import pytest

from bezant.cli.main import main
from bezant.engine.node_file import log_id_of, parse_cluster_id, read_node_file

THREE: Final = "1=h1:7421/h1:7420,2=h2:7421/h2:7420,3=h3:7421/h3:7420"
CLUSTER: Final = "019ac3f2-7c00-7abc-8def-0123456789ab"
JOIN: Final = ("--join", "h1:7420,h2:7420", "--listen", "h4:7420", "--listen-peers", "h4:7421")


def init(data: Path, node: int, *arguments: str) -> int:
    return main(["init", "--data", str(data), "--node", str(node), *arguments])


def test_three_nodes_are_one_group(tmp_path: Path, capsys) -> None:
    nodes = []
    for number in (1, 2, 3):
        data = tmp_path / str(number)
        assert init(data, number, "--members", THREE, "--cluster-id", CLUSTER) == 0
        captured = capsys.readouterr()
        assert captured.out.splitlines() == [
            f"node {number} of 3, cluster {CLUSTER}",
            "initialise the other nodes with the same --members and --cluster-id",
            f"start it: bezant serve --data {data}",
        ]
        assert captured.err == ""
        nodes.append(read_node_file(data))
    assert [node.node_id for node in nodes] == [1, 2, 3]
    assert [node.client_address for node in nodes] == ["h1:7420", "h2:7420", "h3:7420"]
    assert [node.peer_address for node in nodes] == ["h1:7421", "h2:7421", "h3:7421"]
    assert len({log_id_of(node, 0) for node in nodes}) == 1


def test_a_group_of_one_makes_its_id(tmp_path: Path, capsys) -> None:
    assert init(tmp_path / "data", 7, "--members", "7=a:1/a:2", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    node = read_node_file(tmp_path / "data")
    assert parse_cluster_id(told["cluster_id"])
    assert (told["node_id"], told["cluster_id"], told["incarnation"]) == (7, node.cluster_id, node.incarnation)


def test_a_blank_disk_for_a_group_that_exists_is_told_how_to_get_in(tmp_path: Path, capsys) -> None:
    data = tmp_path / "data"
    assert init(data, 4, *JOIN) == 0
    node = read_node_file(data)
    assert (node.members, node.cluster_id, node.join) == ([], "", ["h1:7420", "h2:7420"])
    assert capsys.readouterr().out.splitlines() == [
        "node 4, to join the group at h1:7420, h2:7420",
        f"start it: bezant serve --data {data}",
        "it has itself let in, as a learner; let it vote: bezant members promote 4 --connect h1:7420,h2:7420",
        "if the group knows it on a disk that is lost: bezant members replace 4 --connect h1:7420,h2:7420",
    ]


def test_an_even_number_of_voters_is_done_with_a_warning(tmp_path: Path, capsys) -> None:
    two = "1=h1:7421/h1:7420,2=h2:7421/h2:7420"
    assert init(tmp_path / "data", 2, "--members", two, "--cluster-id", CLUSTER) == 0
    remark = "bezant: 2 voters survive the loss of 0, no more than 1 would: use an odd number\n"
    assert capsys.readouterr().err == remark


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("--members", THREE), 2, "the same id, whichever it is: for example --cluster-id 0"),
        (("--members", THREE, "--cluster-id", "7"), 2, "a cluster id is a UUID of version 7, not '7'"),
        (("--members", "2=a:1/a:2", "--listen", "a:1"), 2, "--listen and --listen-peers go with --join"),
        (("--members", "2=a:1/a:2"), 2, "node 1 is none of the members: 2"),
        (("--members", "1=a:1/a:1"), 2, "the address a:1 is given twice"),
        (("--members", "1=a:0/a:1"), 2, "not 'a:0'"),
        ((*JOIN, "--cluster-id", CLUSTER), 2, "a node that joins learns of its group from the leader"),
        (JOIN[:2], 2, "--join needs --listen and --listen-peers"),
        (JOIN[:4], 2, "--join needs --listen and --listen-peers"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(tmp_path: Path, capsys, arguments, status: int, told: str) -> None:
    assert init(tmp_path / "data", 1, *arguments) == status
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_the_id_that_is_offered_can_be_used(tmp_path: Path, capsys) -> None:
    init(tmp_path / "data", 1, "--members", THREE)
    offered = re.search(r"--cluster-id (\S+);", capsys.readouterr().err)
    assert offered
    assert init(tmp_path / "data", 1, "--members", THREE, "--cluster-id", offered[1]) == 0


def test_a_folder_is_initialised_once(tmp_path: Path, capsys) -> None:
    data = tmp_path / "data"
    assert init(data, 1, "--members", THREE, "--cluster-id", CLUSTER) == 0
    before = (data / "node").read_bytes()
    assert init(data, 4, *JOIN) == 1
    assert f"{data} is initialised already; start it: bezant serve --data {data}" in capsys.readouterr().err
    assert (data / "node").read_bytes() == before


def test_a_folder_with_a_ledger_is_left_alone(tmp_path: Path, capsys) -> None:
    (tmp_path / "shard-0000").mkdir()
    assert init(tmp_path, 1, "--members", THREE, "--cluster-id", CLUSTER) == 1
    assert "is not empty ('shard-0000' is in it): give a folder that is empty or not there" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["shard-0000"]


@pytest.mark.parametrize(
    "members",
    ["", "1", "1=", "1=a:1", "1=a:1/", "1=a:1/b", "x=a:1/a:2", "-1=a:1/a:2", "1=a:1/a:2,", "1=a:1/a:2,1=b:1/b:2"],
)
def test_members_that_are_none_end_with_usage(tmp_path: Path, capsys, members: str) -> None:
    with pytest.raises(SystemExit) as caught:
        init(tmp_path / "data", 1, "--members", members)
    assert caught.value.code == 2
    assert "argument --members: " in capsys.readouterr().err
