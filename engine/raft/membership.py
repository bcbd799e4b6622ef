"""Configurations and how they change (the dissertation, chapter 4).

A change that moves at most one voter is one entry; any other goes through a joint configuration, which the leader
leaves by a second entry once the first is committed. Whether a change may begin is the leader's to decide
(``leading.py``).
"""

from typing import Final

import msgspec

from bezant.protocol.errors import UsageError
from bezant.protocol.messages import Configuration, Member


class _Nobody(Configuration, frozen=True):
    """The configuration of a disk that has no log yet: no group, so nothing that a group needs."""

    def __post_init__(self) -> None:
        pass


NOBODY: Final[Configuration] = _Nobody([], [])


class MembershipChange(msgspec.Struct, frozen=True):
    """What to change, all at once.

    ``add``: new members, as learners; or known ones, of the same incarnation, with new addresses. ``promote``:
    learners, or members added here, that become voters. ``demote``: voters that become learners. ``remove``: members
    that leave.
    """

    add: list[Member] = []
    promote: list[int] = []
    demote: list[int] = []
    remove: list[int] = []


def is_joint(configuration: Configuration) -> bool:
    """Whether two sets of voters must agree."""
    return bool(configuration.voters_outgoing)


def is_voter(configuration: Configuration, node_id: int) -> bool:
    """Whether a node votes, in either half."""
    return node_id in configuration.voters or node_id in configuration.voters_outgoing


def is_alone(configuration: Configuration, node_id: int) -> bool:
    """Whether the node is a group by itself."""
    return node_ids(configuration) == {node_id} and is_voter(configuration, node_id)


def node_ids(configuration: Configuration) -> set[int]:
    """Everyone that the log is sent to."""
    learners = (*configuration.learners, *configuration.learners_next)
    return {*configuration.voters, *configuration.voters_outgoing, *learners}


def changed(configuration: Configuration, change: MembershipChange) -> Configuration:
    """The configuration to append for a change of one that is not joint. Raises `UsageError` if it makes no sense."""
    if is_joint(configuration):
        raise UsageError("a change of members is under way: try again when it is done")
    members = {member.node_id: member for member in configuration.members}
    _check(configuration, change, members)
    added = [member.node_id for member in change.add if member.node_id not in members]
    members.update((member.node_id, member) for member in change.add)
    gone = {*change.demote, *change.remove}
    voters = [node for node in configuration.voters if node not in gone] + change.promote
    learners = [node for node in [*configuration.learners, *added] if node not in {*gone, *change.promote}]
    if len(set(voters) ^ set(configuration.voters)) <= 1:
        return _of_members(members, voters, [], learners + change.demote, [])
    return _of_members(members, voters, configuration.voters, learners, change.demote)


def left(configuration: Configuration) -> Configuration:
    """What follows a joint configuration: the new voters alone, and those demoted as learners."""
    members = {member.node_id: member for member in configuration.members}
    return _of_members(members, configuration.voters, [], configuration.learners + configuration.learners_next, [])


def _of_members(
    members: dict[int, Member], voters: list[int], outgoing: list[int], learners: list[int], learners_next: list[int]
) -> Configuration:
    """The lists, and the members that are in one. Raises `UsageError` for what no group can work with."""
    belonging = {*voters, *outgoing, *learners}
    kept = [member for node, member in members.items() if node in belonging]
    try:
        return Configuration(kept, voters, outgoing, learners, learners_next)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _check(configuration: Configuration, change: MembershipChange, members: dict[int, Member]) -> None:
    added = [member.node_id for member in change.add]
    named = [*change.promote, *change.demote, *change.remove]
    if not added and not named:
        raise UsageError("the change changes nothing")
    if len(set(added)) < len(added) or len(set(named)) < len(named) or set(added) & {*change.demote, *change.remove}:
        raise UsageError("a member is named twice in one change")
    for member in change.add:
        known = members.get(member.node_id)
        if known is not None and known.incarnation != member.incarnation:
            # In a joint configuration the new disk would vote, and count, for the old one.
            raise UsageError(f"member {member.node_id} has another disk: remove it first, then add it again")
    learners = {*configuration.learners, *(node for node in added if node not in configuration.voters)}
    for node in change.promote:
        if node not in learners:
            raise UsageError(f"member {node} is not a learner, so it cannot be promoted")
    for node in change.demote:
        if node not in configuration.voters:
            raise UsageError(f"member {node} is not a voter, so it cannot be demoted")
    for node in change.remove:
        if node not in node_ids(configuration):
            raise UsageError(f"member {node} is not in the group, so it cannot be removed")
