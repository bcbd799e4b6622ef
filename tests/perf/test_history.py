"""Claim: the benchmark of histories runs, measures what it says, and leaves nothing behind."""

import json
from pathlib import Path

import pytest

from bezant.cli.main import main
from bezant.perf.history.making import check_room
from bezant.protocol.errors import StorageError


def test_a_small_history_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--events", "20000", "--accounts", "300", "--questions", "20", "--directory", str(tmp_path)]
    status = main(["bench", "history", *words, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert status == (0 if report["ok"] else 1)
    assert (report["events"], report["accounts"]) == (20_000, 300)
    assert report["catch_up_events_per_s"] > 0
    for figure in ("as_of_hot_us", "as_of_cold_us", "statement_hot_us", "statement_cold_us", "transfer_by_id_us"):
        assert 0 < report[figure]["p50"] <= report[figure]["p99"] <= report[figure]["max"]
    assert list(tmp_path.iterdir()) == []


def test_the_same_for_eyes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--events", "2000", "--accounts", "2", "--questions", "2", "--directory", str(tmp_path)]
    main(["bench", "history", *words])
    assert "2,000 events, 2 accounts" in capsys.readouterr().out


def test_a_disk_without_room_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="events need"):
        check_room(tmp_path, 10**12)


def test_more_accounts_than_events_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "history", "--events", "10", "--accounts", "10"]) == 1
    assert "more events than accounts" in capsys.readouterr().err
