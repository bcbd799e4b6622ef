"""Claim: every option of a process has its key in the file of settings, every key its option, and the pages say so."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from bezant.cli import cluster, gateway, reader, serve
from bezant.cli.setting import settings_of
from bezant.cli.settings import TABLES

MODULES = {"serve": serve, "reader": reader, "gateway": gateway, "cluster": cluster}
OPTIONS_ALONE = frozenset({"help", "config", "repair_from_group", "json"})
"""What is of one start, and no setting."""
UNITS = ("_mib", "_bytes", "_ms", "_s")


@pytest.mark.parametrize("name", TABLES)
def test_every_option_has_its_key_and_every_key_its_option(name: str) -> None:
    subparsers = argparse.ArgumentParser().add_subparsers()
    MODULES[name].add_parser(subparsers)
    options = {action.dest for action in subparsers.choices[name]._actions} - OPTIONS_ALONE
    assert options == set(settings_of(TABLES[name]))


@pytest.mark.parametrize("name", TABLES)
def test_every_setting_says_what_it_is_for_and_its_unit(name: str) -> None:
    for key, setting in settings_of(TABLES[name]).items():
        assert len(setting.words) > 10, key
        for word in ("MiB", "bytes", "milliseconds", " seconds"):
            assert word not in setting.words or key.endswith(UNITS), f"the unit of {key} belongs into its name"


@pytest.mark.parametrize(("file", "words"), [("bezant.toml", []), ("SETTINGS.md", ["--markdown"])])
def test_the_pages_are_what_the_program_prints(root: Path, file: str, words: list[str]) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "bezant", "config", "explain", *words], capture_output=True, text=True, check=True
    ).stdout
    assert (root / "operations" / file).read_text(encoding="utf-8") == printed, (
        f"renew it: bezant config explain {' '.join(words)} > operations/{file}"
    )
