"""Claim: nodes of two versions work in one group, and rules that only the later one knows wait until all know them."""

import pytest

from bezant.engine import member as member_module
from bezant.engine import node_file as node_file_module
from bezant.engine import replay as replay_module
from bezant.engine.ledger import ledger as ledger_module
from bezant.engine.log import checking as checking_module
from bezant.engine.raft.interface import NotLeader
from bezant.net.peers.transport import PeerStatus
from bezant.net.server.group import GroupOperations
from bezant.protocol.errors import UsageError
from bezant.protocol.messages import PeerHello

from .commands import transfers
from .group import MemberGroup


@pytest.fixture
def group(led: MemberGroup) -> MemberGroup:
    """A group that begins under rules 1, the first."""
    return led


@pytest.fixture
def knows_rules_2(group: MemberGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this is a later Bezant. Its rules 2 are no others than rules 1."""
    for module in (member_module, node_file_module, replay_module, ledger_module, checking_module):
        monkeypatch.setattr(module, "RULES_VERSION", 2)


def peer(node_id: int, rules_version_max: int | None) -> PeerStatus:
    """A member that said this when it was last up, or was never up."""
    hello = PeerHello("", node_id, 1, 1, 1, 1, 2, rules_version_max, 0, "") if rules_version_max else None
    return PeerStatus(node_id, "", True, True, "", hello, 0, 0, None, None)


def test_a_later_version_starts_on_what_an_earlier_one_has_begun(group: MemberGroup, knows_rules_2: None) -> None:
    """It would begin the log of a new group otherwise, and so with another number."""
    group.close(2)
    member = group.open(2)
    group.execute(transfers("ann", "bob", 5))
    group.run(10)
    assert member.replica.ledger.digest() == group.leader.replica.ledger.digest()


@pytest.mark.parametrize(
    ("latest", "why"),
    [
        ({2: 2, 3: None}, "node 3 has not said which rules"),
        ({2: 1, 3: 2}, "node 2 executes rules up to 1"),
        ({3: 2}, "node 2 has not said"),
    ],
)
def test_rules_wait_for_the_last_voter(
    group: MemberGroup, knows_rules_2: None, latest: dict[int, int | None], why: str
) -> None:
    operations = GroupOperations(group.leader, lambda: [peer(*known) for known in latest.items()])
    before = group.leader.replica.log.last_index
    with pytest.raises(UsageError, match=why):
        operations.switch_rules(2)
    assert group.leader.replica.log.last_index == before


def test_rules_are_switched_everywhere_at_one_entry(group: MemberGroup, knows_rules_2: None) -> None:
    operations = GroupOperations(group.leader, lambda: [peer(2, 2), peer(3, 3)])
    index = operations.switch_rules(2)
    group.execute(transfers("ann", "bob", 5))
    group.run(10)
    assert group.leader.committed_index > index
    assert {member.replica.ledger.rules_version for member in group.members.values()} == {2}
    assert len({member.replica.ledger.digest() for member in group.members.values()}) == 1


def test_rules_that_this_version_does_not_know_either_are_refused(group: MemberGroup) -> None:
    with pytest.raises(UsageError, match="node 1 executes rules up to 1"):
        GroupOperations(group.leader, lambda: [peer(2, 2), peer(3, 2)]).switch_rules(2)


def test_a_follower_switches_nothing(group: MemberGroup) -> None:
    with pytest.raises(NotLeader):
        group.members[2].switch_rules(1, {})
