"""Claim: what a member does when its disk hangs, or when it has executed what never came to be, is needed."""

from collections.abc import Callable
from typing import Any

import pytest

from bezant.engine.member import Member

from . import test_member as members
from .group import MemberGroup

Patch = pytest.MonkeyPatch


def who_cannot_write_leads_on(patch: Patch) -> None:
    patch.setattr(Member, "note_disk", lambda self, *, hangs: None)


def who_cannot_write_stands_again(patch: Patch) -> None:
    patch.setattr(Member, "_consider_campaigning", lambda self: None)


def abandoned_states_are_kept(patch: Patch) -> None:
    whole = Member._write_accepted

    def write_accepted(self: Any, accepted: Any) -> None:
        if accepted.truncate_to is not None:
            self.replica.applied_index = min(self.replica.applied_index, accepted.truncate_to)
        whole(self, accepted)

    patch.setattr(Member, "_write_accepted", write_accepted)


@pytest.mark.parametrize(
    ("switch_off", "test"),
    [
        (
            who_cannot_write_leads_on,
            members.test_a_leader_whose_disk_hangs_hands_over_at_once_and_leads_again_only_with_a_good_one,
        ),
        (
            who_cannot_write_stands_again,
            members.test_a_leader_whose_disk_hangs_hands_over_at_once_and_leads_again_only_with_a_good_one,
        ),
        (abandoned_states_are_kept, members.test_a_leader_that_executed_what_never_was_committed_begins_anew),
    ],
)
def test_without_its_safeguard_the_test_fails(
    switch_off: Callable[[Patch], None], test: Callable[[MemberGroup], None], led: MemberGroup, monkeypatch: Patch
) -> None:
    with monkeypatch.context() as patch:
        switch_off(patch)
        with pytest.raises(BaseException):  # noqa: B017 - however it shows
            test(led)
