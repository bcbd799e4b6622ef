"""Claim: the measurement of the gateway runs, and counts what failed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bezant.cli.errors import CommandFailed
from bezant.perf.gateway.measuring import GatewaySettings, measure_gateway


def test_without_wrk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CommandFailed) as failed:
        measure_gateway(GatewaySettings(), lambda _: None)
    assert "wrk" in failed.value.next_step


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_a_small_measurement(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bezant", "bench", "gateway", "--json", "--seconds", "1", "--rounds", "1"]
    command += ["--connections", "4", "--directory", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [load["failed"] for load in report["transfers"] + report["empty"]] == [0, 0]
    assert report["ratio"] > 0
    assert report["processor_ratio"] > 0
    assert report["latency_ms_p99"] > 0
    assert list(tmp_path.iterdir()) == []
