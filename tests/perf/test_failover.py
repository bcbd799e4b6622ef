"""Claim: real nodes of a group that are killed, hung, cut off or stopped under load lose and repeat nothing.

And the rig that says so tells when something is wrong, and what it measured.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from bezant.cli.main import main
from bezant.cli.session import run_async
from bezant.perf.failover.book import Book
from bezant.perf.failover.rig import FailoverReport, FailoverRig
from bezant.perf.failover.settings import FAULT_NAMES, FailoverSettings, check_settings
from bezant.protocol.errors import UsageError

SEED = 6


def settings(**changes: Any) -> FailoverSettings:
    few: dict[str, Any] = {"rate": 300, "clients": 3, "accounts": 20, "fault_s": 1.5, "settle_s": 0.1, "seed": SEED}
    return FailoverSettings(**few | changes)


def test_any_node_in_any_way(tmp_path: Path) -> None:
    report: FailoverReport = run_async(FailoverRig(settings(fault="random", trials=4), tmp_path / "group").run())
    assert report.faults == []
    assert report.acknowledged > 300
    assert report.acknowledged + report.unknown_found + report.unknown_absent <= report.requests
    assert report.replicas_level
    assert len(report.trial_reports) == 4
    assert report.events >= report.acknowledged + 20


def test_an_answer_that_no_log_has_is_found_out(tmp_path: Path) -> None:
    def plant(book: Book, _folders: dict[int, Path]) -> None:
        book.end(book.begin(1), 2, (0, 1_000_000, 0, 0, 0, 0, 0, 0))

    report = run_async(FailoverRig(settings(fault="stop", trials=1), tmp_path / "group", before_check=plant).run())
    assert not report.ok
    assert report.lost == 1
    assert report.folder == str(tmp_path / "group")
    assert Path(report.folder).is_dir()


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--trials", "1", "--rate", "300", "--accounts", "20", "--settle", "0.2", "--directory", str(tmp_path)]
    assert main(["bench", "failover", *words, "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert (fields["ok"], fields["trials"], fields["fault"], fields["replicas"]) == (True, 1, "kill", 3)
    assert (fields["lost"], fields["repeated"], fields["changed"], fields["reordered"]) == (0, 0, 0, 0)
    assert fields["acknowledged"] > 0
    assert set(fields["outage_ms"]) == {"p50", "p90", "max"}
    assert fields["outage_ms"]["max"] > 0
    trial = fields["trial_reports"][0]
    assert trial["was_leader"]
    assert trial["level_ms"] > trial["healed_ms"] > 0
    assert 0 < fields["availability"]["availability"] <= 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trials": 0}, "--trials is 1"),
        ({"replicas": 2}, "--replicas is 3 to 7"),
        ({"rate": 0}, "--rate is 1"),
        ({"deadline_s": 0.0}, "--deadline is 0.1"),
        ({"every_s": 60.0}, "--every goes with --minutes"),
        ({"minutes": 600.0, "rate": 2000}, "600 minutes at 2000 requests/s"),
        ({"directory": Path("/nowhere")}, "not a folder"),
    ],
)
def test_what_cannot_be_measured_is_told(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_settings(settings(**changes))


def test_a_run_of_minutes_has_a_fault_every_so_often() -> None:
    assert settings(minutes=60.0).trial_count == 60
    assert settings(minutes=1.0, every_s=20.0).trial_count == 3
    assert settings(trials=7).trial_count == 7


def test_the_command_line_knows_every_fault(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "failover", "--fault", "none"])
    told = capsys.readouterr().err
    assert all(f"'{name}'" in told for name in FAULT_NAMES)
