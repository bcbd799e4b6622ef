"""`bezant members` asks for what was typed, and tells what it was answered."""

import json
from pathlib import Path

import pytest

from bezant.cli import members as cli_members
from bezant.cli.local_cluster import init_cluster
from bezant.cli.main import main
from bezant.cli.members import _HEADINGS
from bezant.net.client import members
from bezant.protocol.errors import BezantError, ConnectionFailed, RequestTimedOut
from bezant.protocol.frames import Operation
from bezant.protocol.messages import (
    ChangeMembers,
    Configuration,
    Member,
    MembersChanged,
    MembersStatus,
    MemberStatus,
    decode_message,
    encode_message,
)

CONFIGURATION = Configuration([Member(1, 9, "a:1", "a:2")], [1])
STATUS = MembersStatus(
    1,
    1,
    5,
    120,
    [
        MemberStatus(1, 9, "h1:1", "h1:2", "leader", "voter", 5, 120, 120, 120, True, 0, 0, 100.0, 0),
        MemberStatus(2, 8, "h2:1", "h2:2", "unknown", "learner", lag_entries=1200, problem="not heard for 3 s"),
        MemberStatus(3, 7, "", "", "follower", "leaving", 5, 99, 99, 98, True, 21, 4096, 37.25, -1_500_000),
    ],
    joint=True,
    problem="2 voters only",
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Operation, bytes]]:
    """What nodes were asked; they answer as if all was done."""
    questions: list[tuple[str, Operation, bytes]] = []

    async def ask(address: str, operation: Operation, body: bytes, timeout_s: float) -> bytes:
        questions.append((address, operation, body))
        if operation is Operation.MEMBERS:
            return encode_message(STATUS)
        return encode_message(MembersChanged(2, 5, 7, CONFIGURATION, "4 voters"))

    monkeypatch.setattr(members, "ask_node", ask)
    return questions


def test_the_status_is_a_table(asked, capsys) -> None:
    assert main(["members", "status", "--connect", "h9:1,h2:2"]) == 0
    first, change, problem, headings, *rows = capsys.readouterr().out.splitlines()
    assert first == "node 1 leads in term 5; committed up to entry 120, says node 1"
    assert change == "a change of voters is under way"
    assert problem == "problem: 2 voters only"
    assert headings.split() == list(_HEADINGS)
    assert " ".join(rows[0].split()) == "1 leader voter h1:2 yes 5 120 0 (0 bytes) 100.0 % +0.0 ms"
    assert " ".join(rows[1].split()) == "2 unknown learner h2:2 no - 0 1,200 - - not heard for 3 s"
    assert " ".join(rows[2].split()) == "3 follower leaving - yes 5 99 21 (4,096 bytes) 37.2 % -1.5 ms"
    assert asked[0] == ("h9:1", Operation.MEMBERS, b"")


def test_the_status_as_json_is_the_message(asked, capsys) -> None:
    assert main(["members", "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(_plain(STATUS)))
    assert asked[0][0] == "127.0.0.1:7420"


def _plain(status: MembersStatus) -> dict[str, object]:
    rows = [{name: getattr(row, name) for name in row.__struct_fields__} for row in status.members]
    return {name: getattr(status, name) for name in status.__struct_fields__} | {"members": rows}


@pytest.mark.parametrize(
    ("line", "change", "told"),
    [
        (
            "add 4 --incarnation 9223372036854775807 --peer h4:1 --client h4:2",
            ChangeMembers("add", 4, (1 << 63) - 1, "h4:1", "h4:2"),
            "node 4 is a learner; let it vote: bezant members promote 4",
        ),
        ("remove 3", ChangeMembers("remove", 3), "node 3 is no member any more: stop it"),
        ("promote 4 --expected-term 5", ChangeMembers("promote", 4, expected_term=5), "node 4 votes"),
        ("promote 4", ChangeMembers("promote", 4), "node 4 votes"),
        ("demote 4", ChangeMembers("demote", 4), "node 4 does not vote any more"),
        ("transfer 2", ChangeMembers("transfer", 2), "node 2 leads"),
    ],
)
def test_a_change_is_asked_for_and_told(asked, capsys, line: str, change: ChangeMembers, told: str) -> None:
    assert main(["members", *line.split(), "--connect", "h1:2"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{told}\n"
    assert captured.err == "bezant: 4 voters\n"
    ((address, operation, body),) = asked
    assert (address, operation) == ("h1:2", Operation.CHANGE_MEMBERS)
    assert decode_message(body, ChangeMembers) == change
    assert main(["members", *line.split(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["index"] == 7


def test_a_node_can_be_let_in_to_vote(asked, capsys) -> None:
    line = "members add 4 --incarnation 9 --peer h4:1 --client h4:2 --promote --connect h1:2"
    assert main(line.split()) == 0
    assert capsys.readouterr().out == "node 4 votes\n"
    changes = [decode_message(body, ChangeMembers) for _, _, body in asked]
    assert changes == [ChangeMembers("add", 4, 9, "h4:1", "h4:2"), ChangeMembers("promote", 4)]


def status_with(*rows: MemberStatus) -> bytes:
    return encode_message(MembersStatus(1, 1, 5, 120, list(rows)))


LOST = MemberStatus(3, 7, "h3:1", "h3:2", "follower", "voter")
NEW = MemberStatus(3, 8, "h3:1", "h3:2", "follower", "learner")


@pytest.mark.parametrize(
    ("statuses", "actions"),
    [
        ([status_with(LOST), status_with(), status_with(NEW)], ["remove", "promote"]),
        ([status_with(), status_with(NEW)], ["promote"]),
        ([status_with(NEW)], ["promote"]),
    ],
)
def test_a_lost_disk_is_replaced_by_a_new_one(monkeypatch, capsys, statuses, actions) -> None:
    """Each line is where an earlier attempt may have been given up."""
    asked: list[str] = []

    async def ask(address: str, operation: Operation, body: bytes, timeout_s: float) -> bytes:
        if operation is Operation.MEMBERS:
            return statuses.pop(0) if len(statuses) > 1 else statuses[0]
        asked.append(decode_message(body, ChangeMembers).action)
        return encode_message(MembersChanged(1, 5, 7, CONFIGURATION))

    monkeypatch.setattr(members, "ask_node", ask)
    monkeypatch.setattr(cli_members, "POLL_S", 0)
    assert main(["members", "replace", "3"]) == 0
    assert capsys.readouterr().out == "node 3 votes, on its new disk\n"
    assert asked == actions


def test_a_disk_that_is_there_is_not_replaced(asked, monkeypatch, capsys) -> None:
    assert main(["members", "replace", "1"]) == 1
    assert capsys.readouterr().err.startswith("bezant: failed: node 1 is up, on a disk that votes; stop it first")
    assert [operation for _, operation, _ in asked] == [Operation.MEMBERS]


RECOVER = "members recover --i-accept-that-acknowledged-transfers-may-be-lost --node"


def test_one_node_goes_on_alone_and_it_is_told_what_that_means(tmp_path: Path, capsys) -> None:
    init_cluster(tmp_path, 3, 0)
    assert main([*RECOVER.split(), "2", "--data", str(tmp_path / "node-2")]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[:3] == [
        "node 2 is the only voter, in term 2",
        "known to be committed: entries up to 1; its log ends with 1",
        "never start again on their disks: node 1, node 3",
    ]
    assert "accepting that acknowledged transfers may be lost" in captured.err


def test_it_has_to_be_the_node_that_is_meant(tmp_path: Path, capsys) -> None:
    init_cluster(tmp_path, 3, 0)
    assert main([*RECOVER.split(), "1", "--data", str(tmp_path / "node-2")]) != 0
    assert "belongs to node 2, not to node 1" in capsys.readouterr().err
    assert not (tmp_path / "node-2" / "shard-0000").exists()


@pytest.mark.parametrize("error", [RequestTimedOut("no answer"), ConnectionFailed("nobody there")])
def test_no_answer_is_not_told_as_a_refusal(monkeypatch, capsys, error: BezantError) -> None:
    async def fail(*_: object) -> bytes:
        raise error

    monkeypatch.setattr(members, "ask_node", fail)
    assert main(["members", "remove", "3", "--timeout", "0.01"]) == 1
    told = f"no leader answered within 0.01 s; the last that was heard: {error}; it may be done or not; see: bezant mem"
    assert capsys.readouterr().err.startswith(f"bezant: failed: {told}")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "sack 3",
        "remove",
        "remove 0",
        "add 4",
        "add 4 --incarnation 0 --peer a:1 --client a:2",
        "add 4 --incarnation 9223372036854775808 --peer a:1 --client a:2",
        "add 4 --incarnation 1 --peer a --client a:2",
        "status --connect a:1,b",
        "promote 4 --incarnation 1",
        "recover --data d --node 1",
    ],
)
def test_a_wrong_line_ends_with_usage(line: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["members", *line.split()])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: bezant ")
