"""Claim: `bezant diff` says in words and in JSON whether two versions part, and where."""

import json
import sys
from pathlib import Path

import pytest

import bezant
from bezant.cli import diff as diff_module
from bezant.cli.main import main
from bezant.engine.diffing.comparing import DiffReport, Divergence, FieldDifference, Version

ROOT = Path(__file__).parents[2]


async def test_a_folder_with_this_version_beside_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, other = tmp_path / "data", tmp_path / "python"
    async with await bezant.open(data) as wallet:
        await wallet.open_account("world", "EUR", limit=bezant.UNLIMITED)
    other.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} "$@"\n')
    other.chmod(0o755)
    assert main(["diff", str(data), "--with", str(other), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["events"], told["divergence"]) == (True, 1, None)
    assert told["this"]["kernel_digest"] == told["other"]["kernel_digest"]
    assert main(["diff", str(data), "--with", str(other)]) == 0
    assert "both make the same of all 1 events" in capsys.readouterr().out
    assert main(["diff", str(data), "--with", str(tmp_path / "missing")]) == 2
    assert "is not an installation" in capsys.readouterr().err
    assert main(["diff", str(tmp_path / "missing"), "--with", str(other)]) == 1


@pytest.mark.parametrize(
    ("divergence", "lines"),
    [
        (
            Divergence(7, 40, (FieldDifference("amount", "3", "4"),), ""),
            ["entry 7, sequence 40:", "field   this  other", "amount  3     4"],
        ),
        (Divergence(7, 0, (), "the other version does not"), ["entry 7: the other version does not"]),
        (Divergence(0, 0, (), "the state is not"), ["the state is not"]),
    ],
)
def test_a_divergence_is_shown(divergence: Divergence, lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    version = Version("python", "0.1.0", "00")
    diff_module._write(DiffReport(version, version, 6, 39, divergence))
    assert capsys.readouterr().out.splitlines()[2:] == ["the same up to event 39, in 6 entries", *lines]
