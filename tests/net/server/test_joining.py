"""Claim: a node that hears no leader asks who belongs to its group, and lets those in whom it did not know."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from bezant.engine.node_file import joining_node
from bezant.net.server import joining
from bezant.net.server.joining import LEADERLESS_S, GroupFinder, join_group
from bezant.protocol.errors import BezantError, ConnectionFailed, RequestTimedOut
from bezant.protocol.messages import ChangeMembers, Configuration, GroupFacts, Member

NODE = joining_node(4, ["h1:1", "h2:1"], peer_address="h4:2", client_address="h4:1")
KNOWN = Configuration([Member(1, 9, "h1:2", "h1:1"), Member(3, 9, "h3:2", "h3:1"), NODE.member], [1, 3], [], [4])
FACTS = GroupFacts(77, 0, 12, KNOWN)


class Group:
    """What nodes of the group are asked and answer, by address; everything else fails."""

    def __init__(self) -> None:
        self.answers: dict[str, GroupFacts] = {}
        self.asked: list[str] = []
        self.changes: list[ChangeMembers] = []
        self.failures: list[BezantError] = []

    async def ask(self, addresses: Any, record: Member) -> GroupFacts:
        assert record == NODE.member
        for address in addresses:
            self.asked.append(address)
            if address in self.answers:
                return self.answers[address]
        raise ConnectionFailed("nobody knows")

    async def change(self, addresses: Any, change: ChangeMembers, timeout_s: float) -> None:
        self.changes.append(change)
        if self.failures:
            raise self.failures.pop(0)


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Group:
    made = Group()
    monkeypatch.setattr(joining, "ask_for_group", made.ask)
    monkeypatch.setattr(joining, "change_members", made.change)
    monkeypatch.setattr(joining, "BACKOFF_S_MIN", 0.001)
    return made


def finder_of(leader_id: int, found: list[GroupFacts], *, is_alone: bool = False) -> tuple[GroupFinder, Any]:
    member: Any = SimpleNamespace(leader_id=leader_id, is_alone=is_alone, configuration=KNOWN)
    return GroupFinder(NODE, member, found.append), member


async def test_a_blank_disk_has_itself_let_in_and_says_what_is_in_the_way(group: Group, caplog) -> None:
    group.failures = [RequestTimedOut("no leader"), RequestTimedOut("no leader"), ConnectionFailed("gone")]
    group.answers = {"h2:1": FACTS}
    assert await join_group(NODE) == FACTS
    assert group.changes == [ChangeMembers("add", 4, NODE.incarnation, "h4:2", "h4:1")] * 4
    assert [record.message for record in caplog.records] == [
        "bezant: node 4 waits to be let into its group: no leader",
        "bezant: node 4 waits to be let into its group: gone",
    ]


async def test_nobody_is_asked_while_there_is_a_leader(group: Group) -> None:
    for leader_id, is_alone in ((1, False), (0, True)):
        finder, _ = finder_of(leader_id, [], is_alone=is_alone)
        finder.on_time(0.0)
        finder.on_time(LEADERLESS_S + 1)
        await asyncio.sleep(0)
    assert group.asked == []


async def test_all_who_may_know_are_asked_after_a_while_and_again(group: Group) -> None:
    found: list[GroupFacts] = []
    finder, member = finder_of(0, found)
    finder.on_time(10.0)
    finder.on_time(10.0 + LEADERLESS_S - 0.01)
    await asyncio.sleep(0)
    assert group.asked == []
    finder.on_time(10.0 + LEADERLESS_S)
    await asyncio.sleep(0.01)
    assert group.asked == ["h1:1", "h3:1", "h2:1"]
    assert found == []
    group.answers = {"h3:1": FACTS}
    finder.on_time(10.0 + 2 * LEADERLESS_S)
    await asyncio.sleep(0.01)
    assert found == [FACTS]
    member.leader_id = 1
    finder.on_time(10.0 + 3 * LEADERLESS_S)
    await asyncio.sleep(0.01)
    assert len(found) == 1


async def test_a_question_ends_with_the_node(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(joining, "ask_for_group", never)
    finder, _ = finder_of(0, [])
    finder.on_time(0.0)
    finder.on_time(LEADERLESS_S)
    await asyncio.sleep(0)
    await asyncio.wait_for(finder.stop(), 1)
