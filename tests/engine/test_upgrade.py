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
from bezant.protocol.records import RULES_VERSION

from .commands import transfers
from .group import MemberGroup

NOW = RULES_VERSION
LATER = RULES_VERSION + 1


@pytest.fixture
def group(led: MemberGroup) -> MemberGroup:
    """A group that begins under the latest rules."""
    return led


@pytest.fixture
def knows_later_rules(group: MemberGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this is a later Bezant. Its rules are no others than those before."""
    for module in (member_module, node_file_module, replay_module, ledger_module, checking_module):
        monkeypatch.setattr(module, "RULES_VERSION", LATER)


def peer(node_id: int, rules_version_max: int | None) -> PeerStatus:
    """A member that said this when it was last up, or was never up."""
    hello = PeerHello("", node_id, 1, 1, 1, 1, 2, rules_version_max, 0, "") if rules_version_max else None
    return PeerStatus(node_id, "", True, True, "", hello, 0, 0, None, None)


def test_a_later_version_starts_on_what_an_earlier_one_has_begun(group: MemberGroup, knows_later_rules: None) -> None:
    """It would begin the log of a new group otherwise, and so with another number."""
    group.close(2)
    member = group.open(2)
    group.execute(transfers("ann", "bob", 5))
    group.run(10)
    assert member.replica.ledger.digest() == group.leader.replica.ledger.digest()


@pytest.mark.parametrize(
    ("latest", "why"),
    [
        ({2: LATER, 3: None}, "node 3 has not said which rules"),
        ({2: NOW, 3: LATER}, f"node 2 executes rules up to {NOW}"),
        ({3: LATER}, "node 2 has not said"),
    ],
)
def test_rules_wait_for_the_last_voter(
    group: MemberGroup, knows_later_rules: None, latest: dict[int, int | None], why: str
) -> None:
    operations = GroupOperations(group.leader, lambda: [peer(*known) for known in latest.items()])
    before = group.leader.replica.log.last_index
    with pytest.raises(UsageError, match=why):
        operations.switch_rules(LATER)
    assert group.leader.replica.log.last_index == before


def test_rules_are_switched_everywhere_at_one_entry(group: MemberGroup, knows_later_rules: None) -> None:
    operations = GroupOperations(group.leader, lambda: [peer(2, LATER), peer(3, LATER + 1)])
    index = operations.switch_rules(LATER)
    group.execute(transfers("ann", "bob", 5))
    group.run(10)
    assert group.leader.committed_index > index
    assert {member.replica.ledger.rules_version for member in group.members.values()} == {LATER}
    assert len({member.replica.ledger.digest() for member in group.members.values()}) == 1


def test_rules_that_this_version_does_not_know_either_are_refused(group: MemberGroup) -> None:
    with pytest.raises(UsageError, match=f"node 1 executes rules up to {NOW}"):
        GroupOperations(group.leader, lambda: [peer(2, LATER), peer(3, LATER)]).switch_rules(LATER)


def test_a_follower_switches_nothing(group: MemberGroup) -> None:
    with pytest.raises(NotLeader):
        group.members[2].switch_rules(1, {})
