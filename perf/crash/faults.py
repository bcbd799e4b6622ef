"""What a crash must never do, as a list that grows while it is looked for."""

from enum import StrEnum, unique
from typing import Final, NamedTuple

from bezant.protocol.errors import BezantError

FAULTS_TOLD_MAX: Final = 20
"""Faults of one run that are described; all are counted."""


@unique
class FaultKind(StrEnum):
    """The ways in which a promise can be broken."""

    MISSING = "missing"
    """What was acknowledged is not there."""
    REPEATED = "repeated"
    """Something was done twice, or in the history of one node something was done that nobody asked for."""
    CHANGED = "changed"
    """An outcome, a position or a balance is another than it was, or than it must be."""
    IN_PART = "in_part"
    """A part of a chain, or a later command of a connection without an earlier one."""
    REORDERED = "reordered"
    """What was asked after another's answer lies before it."""
    UNEXPLAINED = "unexplained"
    """Something is there that nobody asked for."""
    REFUSED = "refused"
    """The node does not start, or its folder does not verify."""


class Fault(NamedTuple):
    """One broken promise."""

    kind: FaultKind
    text: str


class Faults:
    """Faults found so far: each kind counted, the first ones described."""

    def __init__(self) -> None:
        self.counts: dict[FaultKind, int] = dict.fromkeys(FaultKind, 0)
        self.told: list[Fault] = []

    def add(self, kind: FaultKind, text: str, count: int = 1) -> None:
        """Take notice of `count` faults that one text describes."""
        self.counts[kind] += count
        if len(self.told) < FAULTS_TOLD_MAX:
            self.told.append(Fault(kind, text))

    def __bool__(self) -> bool:
        return any(self.counts.values())


class RigFailed(BezantError):  # noqa: N818 - it says what happened, as in `bezant.protocol.errors`
    """The rig could not do its work, for a reason that says nothing about the engine's promises."""
