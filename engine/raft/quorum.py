"""Who is a majority. In a joint configuration both halves must agree, each counted by itself and never over their union
(the dissertation, section 4.3)."""

from collections.abc import Collection, Mapping

from bezant.protocol.messages import Configuration


def quorum_value(configuration: Configuration, values: Mapping[int, int]) -> int:
    """The greatest number that a quorum has reached; a voter without a value has reached 0."""
    value = _majority_value(configuration.voters, values)
    if configuration.voters_outgoing:
        value = min(value, _majority_value(configuration.voters_outgoing, values))
    return value


def is_quorum(configuration: Configuration, nodes: Collection[int]) -> bool:
    """Whether these nodes are enough to decide; nodes that do not vote count for nothing."""
    halves = [configuration.voters, configuration.voters_outgoing or configuration.voters]
    return all(2 * sum(voter in nodes for voter in half) > len(half) for half in halves)


def can_be_quorum(configuration: Configuration, refusing: Collection[int]) -> bool:
    """Whether a quorum is still possible without the nodes that refuse."""
    return is_quorum(configuration, {*configuration.voters, *configuration.voters_outgoing}.difference(refusing))


def _majority_value(voters: list[int], values: Mapping[int, int]) -> int:
    if not voters:
        return 0
    return sorted([values.get(voter, 0) for voter in voters])[(len(voters) - 1) // 2]
