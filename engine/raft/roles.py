"""The roles of a member, and which may follow which; what is absent here cannot happen (the paper, figure 4)."""

import enum
from typing import Final

from bezant.protocol.errors import LedgerError


class Role(enum.IntEnum):
    """What a member is in its term."""

    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3


TRANSITIONS: Final[dict[Role, frozenset[Role]]] = {
    # A follower campaigns without asking first only if its leader told it to.
    Role.FOLLOWER: frozenset({Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE}),
    Role.PRE_CANDIDATE: frozenset({Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE}),
    Role.CANDIDATE: frozenset({Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER}),
    Role.LEADER: frozenset({Role.FOLLOWER}),
}


def next_role(role: Role, wanted: Role) -> Role:
    """Return `wanted`. Raises `LedgerError` if it cannot follow `role`."""
    if wanted not in TRANSITIONS[role]:
        raise LedgerError(f"a {role.name} cannot become a {wanted.name}")
    return wanted
