"""Claim: what the core is given is checked, and what it shows is what is."""

import random
from typing import Any

import pytest

from bezant.engine.raft.core import Core
from bezant.engine.raft.hard_state import HardState
from bezant.engine.raft.interface import CoreSettings
from bezant.engine.raft.roles import Role
from bezant.engine.raft.state import State
from bezant.protocol.errors import LedgerError, UsageError

from .groups import Group
from .peers import MemoryLog, configuration, memory_log

THREE = configuration([1, 2, 3])


@pytest.mark.parametrize(
    "settings",
    [
        {"heartbeat_ticks": 0},
        {"heartbeat_ticks": 30},
        {"election_ticks_min": 61},
        {"messages_in_flight_max": 0},
        {"append_bytes_max": 0},
        {"reads_waiting_max": 0},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        CoreSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{"durable_index": 3}, {"commit_index": 3}])
def test_a_member_does_not_start_on_what_its_log_does_not_have(given: dict[str, Any]) -> None:
    whole = {
        "node_id": 1,
        "hard_state": HardState(),
        "log": memory_log([1, 1]),
        "durable_index": 2,
        "configurations": [(0, THREE)],
        "commit_index": 0,
        "settings": CoreSettings(),
        "random": random.Random(1),
    }
    with pytest.raises(LedgerError):
        Core(**{**whole, **given})


def state() -> State:
    return State(1, HardState(5, 2), MemoryLog(), CoreSettings(), [(0, THREE)])


@pytest.mark.parametrize(("term", "voted_for"), [(4, 2), (5, 3), (5, 0)])
def test_neither_a_term_nor_a_vote_is_taken_back(term: int, voted_for: int) -> None:
    with pytest.raises(LedgerError):
        state().set_hard_state(term=term, voted_for=voted_for, barred=False)


@pytest.mark.parametrize(("term", "voted_for"), [(5, 2), (6, 0), (6, 3)])
def test_what_a_hard_state_may_become(term: int, voted_for: int) -> None:
    changed = state()
    changed.set_hard_state(term=term, voted_for=voted_for, barred=False)
    assert changed.hard_state == HardState(term, voted_for)


def test_only_a_leader_appends_and_its_log_never_shrinks() -> None:
    group = Group()
    group.elect(1).propose(3)
    with pytest.raises(LedgerError):
        group[2].core.appended(9)
    with pytest.raises(LedgerError, match="only grows"):
        group[1].core.appended(1)


def test_the_status_of_a_leader_and_of_a_follower() -> None:
    group = Group()
    leader = group.elect(1)
    leader.propose(4)
    group.tick(6)
    status = leader.core.status()
    assert (status.role, status.leader_id, status.term) == (Role.LEADER, 1, 1)
    assert (status.commit_index, status.durable_index, status.last_index) == (5, 5, 5)
    assert status.configuration_committed
    found = [(item.node_id, item.match_index, item.state, item.recent_active, item.barred) for item in status.members]
    assert found == [(1, 5, "self", True, False), (2, 5, "replicate", True, False), (3, 5, "replicate", True, False)]
    follower = group[2].core.status()
    assert (follower.role, follower.leader_id, follower.members) == (Role.FOLLOWER, 1, [])
    group.isolate(3)
    group.tick(40)
    assert [item.recent_active for item in leader.core.status().members] == [True, True, False]
