"""Claim: what tells a torn tail from rot, and what makes good a failed sync, is needed: a test fails without it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bezant.engine.log.recovery import Walk

from . import test_recovery as recovery
from . import test_sync_failure as sync_failure
from .crashes import History

Patch = pytest.MonkeyPatch


def damage_is_always_a_torn_tail(patch: Patch) -> None:
    patch.setattr(Walk, "_judge", lambda *_: None)


def later_headers_do_not_speak(patch: Patch) -> None:
    patch.setattr(Walk, "_watermark_behind", lambda *_: 0)


def bodies_are_not_checked(patch: Patch) -> None:
    patch.setattr("bezant.engine.log.recovery.body_is_whole", lambda header, body: True)


def the_page_cache_is_believed(patch: Patch) -> None:
    patch.setattr(Walk, "write_tail_again", lambda _: None)


def _below_the_watermark(folder: Path, history: History, _: Patch) -> None:
    recovery.test_damage_below_the_control_page_s_watermark_is_rot(folder, history, recovery.ROT["header"], 3)


def _after_a_clean_stop(folder: Path, history: History, _: Patch) -> None:
    recovery.test_after_a_clean_stop_all_damage_is_rot(folder, history, 3)


def _below_a_later_header(folder: Path, history: History, _: Patch) -> None:
    recovery.test_damage_below_what_a_later_header_knew_to_be_durable_is_rot(folder, history, 3)


def _after_a_failed_sync(folder: Path, history: History, patch: Patch) -> None:
    recovery.test_what_only_the_page_cache_may_have_is_written_again(folder, history, patch)


@pytest.mark.parametrize(
    ("switch_off", "test"),
    [
        (damage_is_always_a_torn_tail, _below_the_watermark),
        (damage_is_always_a_torn_tail, _after_a_clean_stop),
        (later_headers_do_not_speak, _below_a_later_header),
        (bodies_are_not_checked, _after_a_clean_stop),
        (the_page_cache_is_believed, _after_a_failed_sync),
    ],
)
def test_without_its_safeguard_the_test_fails(
    switch_off: Callable[[Patch], None],
    test: Callable[[Path, History, Patch], None],
    tmp_path: Path,
    history: History,
    monkeypatch: Patch,
) -> None:
    with monkeypatch.context() as patch:
        test(tmp_path / "with", history, patch)
    with monkeypatch.context() as patch:
        switch_off(patch)
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            test(tmp_path / "without", history, patch)


@pytest.mark.parametrize("failing", ["sync", "write"])
def test_a_process_that_goes_on_after_a_failed_sync_is_noticed(
    tmp_path: Path, monkeypatch: Patch, failing: str
) -> None:
    safeguard = "from bezant.net.server.syncing import write_or_die\n"
    without = "from contextlib import suppress\n\ndef write_or_die(group):\n    with suppress(OSError):\n        "
    program: Any = sync_failure.PROGRAM
    assert safeguard in program
    monkeypatch.setattr(sync_failure, "PROGRAM", program.replace(safeguard, f"{without}group.write_and_sync()\n"))
    with pytest.raises(AssertionError):
        sync_failure.test_a_failed_group_ends_the_process_at_once(tmp_path, failing)
