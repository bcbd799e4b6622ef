"""Claim: the benchmark of histories runs, measures what it says, and leaves nothing behind."""

import json
from pathlib import Path

import pytest

from bezant.cli.main import main
from bezant.perf.history.making import check_room
from bezant.perf.history.report import CatchUp, HistoryReport, Receipts, Verify
from bezant.protocol.errors import StorageError


def test_a_small_history_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--events", "20000", "--accounts", "300", "--questions", "20", "--directory", str(tmp_path)]
    status = main(["bench", "history", *words, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert status == (0 if report["ok"] else 1)
    assert (report["events"], report["accounts"]) == (20_000, 300)
    assert report["ok"] is not bool(report["missed"])
    catch_up, receipts = report["catch_up"], report["receipts"]
    assert catch_up["events_per_s"] >= catch_up["settled_events_per_s"] > 0
    assert min(catch_up[f"{part}_ns_per_event"] for part in ("log", "projections", "tree")) > 0
    assert (report["verify"]["events_per_s"] > 0, report["verify"]["doubt"]) == (True, "")
    asked = [*report["balance_as_of_us"].values(), *report["statement_100_us"].values(), report["transfer_by_id_us"]]
    for figure in (*asked, receipts["issue_us"], receipts["check_us"]):
        assert 0 < figure["p50"] <= figure["p99"] <= figure["max"]
    assert set(report["balance_as_of_us"]) == set(report["statement_100_us"]) == {"hot", "cold"}
    assert (receipts["count"], receipts["size_bytes_max"] <= 2048) == (1000, True)
    assert report["reader_bytes"] > 20_000
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


def test_what_is_too_slow_or_too_large_is_told() -> None:
    fast = dict.fromkeys(("p50", "p99", "max"), 1.0)
    slow = {**fast, "p99": 2001.0}
    report = HistoryReport(
        events=10,
        accounts=2,
        make_events_per_s=1,
        verify=Verify(4_000_000, 2, 2, 1.0, ""),
        catch_up=CatchUp(999_999, 1, 1.0, 1.0, 1.0, 1.0),
        reader_bytes=1,
        index_files=1,
        reopen_s=1.0,
        balance_as_of_us={"hot": slow, "cold": fast},
        statement_100_us={"hot": fast, "cold": slow},
        transfer_by_id_us=slow,
        receipts=Receipts(1, slow, fast, 2049),
        kernel_digest="",
    )
    assert [fault.split(":")[0] for fault in report.missed] == [
        "last 100 lines of a statement, cold",
        "catching up",
        "a receipt has 2049 bytes, more than 2048",
    ]
