"""Claim: every micro-benchmark runs and times something."""

import subprocess
import sys

import pytest

from bezant.perf.micro.benchmarks import BENCHMARKS, Benchmark


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=[benchmark.name for benchmark in BENCHMARKS])
def test_it_runs(benchmark: Benchmark) -> None:
    assert benchmark.run(1) > 0
    assert benchmark.units_per_loop >= 1


def test_names_differ() -> None:
    assert len({benchmark.name for benchmark in BENCHMARKS}) == len(BENCHMARKS)


def test_pyperf_runs_those_that_were_chosen() -> None:
    command = [sys.executable, "-m", "bezant.perf.micro", "--debug-single-value", "--quiet", "--only", "blake3"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert "blake3" in run.stdout
    assert "xxh3" not in run.stdout
