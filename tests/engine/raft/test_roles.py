"""Claim: a role follows another only as the table says; every pair that it lacks is refused."""

import itertools

import pytest

from bezant.engine.raft.roles import TRANSITIONS, Role, next_role
from bezant.protocol.errors import LedgerError

PAIRS = {
    "FOLLOWER": {"FOLLOWER", "PRE_CANDIDATE", "CANDIDATE"},
    "PRE_CANDIDATE": {"FOLLOWER", "PRE_CANDIDATE", "CANDIDATE"},
    "CANDIDATE": {"FOLLOWER", "PRE_CANDIDATE", "CANDIDATE", "LEADER"},
    "LEADER": {"FOLLOWER"},
}


def test_the_table_is_what_it_is_meant_to_be() -> None:
    assert {role.name: {other.name for other in others} for role, others in TRANSITIONS.items()} == PAIRS


@pytest.mark.parametrize(("role", "wanted"), list(itertools.product(Role, Role)))
def test_every_pair(role: Role, wanted: Role) -> None:
    if wanted.name in PAIRS[role.name]:
        assert next_role(role, wanted) is wanted
    else:
        with pytest.raises(LedgerError):
            next_role(role, wanted)
