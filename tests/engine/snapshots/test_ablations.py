"""Claim: each safeguard of states and histories is found missing by a test of what it is for."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import msgspec
import pytest

from bezant.engine.log import receiving as log_receiving
from bezant.engine.log.storage import Directory
from bezant.engine.raft.core import Core
from bezant.engine.replica import ReplicaSettings
from bezant.engine.snapshots import receiving
from bezant.engine.snapshots.making import SegmentMaker
from bezant.engine.snapshots.receiving import Receiver
from bezant.engine.snapshots.sending import OpenState

from ...simulator.disk import AtOnce
from ..conftest import Clock
from . import group as group_module
from . import test_transfer as tests
from .group import TransferGroup, behind

Patch = pytest.MonkeyPatch


def parts_are_not_compared(patch: Patch) -> None:
    patch.setattr(receiving, "checksum_of", lambda part: ANY)


def states_are_not_verified(patch: Patch) -> None:
    patch.setattr(Receiver, "_verify", lambda self: None)


def any_group_will_do(patch: Patch) -> None:
    whole = Receiver._read_manifest

    def read_manifest(self: Any) -> None:
        self._facts.log_id = tests.LOG_ID[0]
        whole(self)

    patch.setattr(Receiver, "_read_manifest", read_manifest)


def bodies_are_not_checked(patch: Patch) -> None:
    patch.setattr(log_receiving, "body_is_whole", lambda header, body: True)
    patch.setattr(SegmentMaker, "finish", _finish_without_looking)


def _finish_without_looking(self: Any) -> None:
    self._last_hash = self._end.chain_hash
    _finish(self)


_finish = SegmentMaker.finish


def files_are_opened_when_they_are_read(patch: Patch) -> None:
    def read(self: Any, request: Any) -> Any:
        if self._state is not None:
            self._state.close()
            self._state = OpenState(self._folder.directory, self._state.manifest.point.index)
        return whole(self, request)

    from bezant.engine.snapshots.sending import Sender

    whole = Sender.read
    patch.setattr(Sender, "read", read)


def members_without_history_stand_at_once(patch: Patch) -> None:
    patch.setattr(Core, "may_campaign", property(lambda self: True, lambda self, may: None))


def every_state_is_wanted(patch: Patch) -> None:
    patch.setattr(Core, "wants_snapshot", lambda self, index, term: True)


def installs_are_not_gone_on_with(patch: Patch) -> None:
    from bezant.engine import opening

    patch.setattr(opening, "finish_install", lambda *arguments: 0)


ROWS: list[tuple[Callable[[Patch], None], Callable[..., None], tuple[Any, ...]]] = [
    (parts_are_not_compared, tests.test_a_damaged_part_is_refused_and_asked_for_again, ()),
    (states_are_not_verified, tests.test_a_file_that_is_damaged_at_the_leader_does_not_get_through, ("rotten",)),
    (any_group_will_do, tests.test_a_state_of_another_group_is_refused, ()),
    (bodies_are_not_checked, tests.test_entries_of_another_history_do_not_get_through, ()),
    (
        files_are_opened_when_they_are_read,
        tests.test_a_newer_checkpoint_takes_nothing_away,
        (),
    ),
    (members_without_history_stand_at_once, tests.test_a_member_without_history_does_not_stand_while_others_may, ()),
    (every_state_is_wanted, tests.test_a_state_is_of_no_use_to_who_has_more, ()),
    (installs_are_not_gone_on_with, tests.test_what_it_had_is_kept_and_the_rest_comes, ()),
]


@pytest.fixture
def prepared(tmp_path: Path, small: ReplicaSettings, clock: Clock, monkeypatch: Patch) -> Iterator[TransferGroup]:
    """As in the tests, with less patience."""
    monkeypatch.setattr(Directory, "helper", lambda self, name: AtOnce())
    monkeypatch.setattr(group_module, "TICKS_MAX", 400)
    group = TransferGroup(tmp_path, msgspec.structs.replace(small, snapshot_behind_bytes=100_000), clock)
    behind(group)
    tests.LOG_ID[:] = [group.leader.replica.log.log_id]
    yield group
    group.close()


@pytest.mark.parametrize(("switch_off", "test", "arguments"), ROWS)
def test_a_missing_safeguard_is_found(
    switch_off: Callable[[Patch], None],
    test: Callable[..., None],
    arguments: tuple[Any, ...],
    prepared: TransferGroup,
    monkeypatch: Patch,
) -> None:
    with monkeypatch.context() as patch:
        switch_off(patch)
        with pytest.raises(BaseException):  # noqa: B017 - however it shows
            test(prepared, *arguments)
