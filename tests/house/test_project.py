"""Claim: the project installs everywhere the same: links are links, and the lock pins bytes, not places."""

import re
import subprocess
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOMS = ("engine", "net", "perf", "protocol")
PIN = re.compile(r"([a-z0-9][a-z0-9._-]*)==([0-9][a-z0-9.+!]*)( ; [^\\]+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
ADDRESS = re.compile(r"://|\bindex-url\b|\bfind-links\b|\btrusted-host\b| @ |^-(?!-hash)|^/|\bfile:", re.MULTILINE)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_linked_into_the_package(root: Path, room: str) -> None:
    link = root / "bezant" / room
    assert link.is_symlink()
    assert link.readlink() == Path("..") / room


@pytest.mark.parametrize("room", ROOMS)
def test_the_links_are_committed_as_links(root: Path, room: str) -> None:
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    command = ["git", "ls-files", "--stage", "--", f"bezant/{room}"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=60).stdout
    assert re.fullmatch(rf"120000 [0-9a-f]+ 0\tbezant/{room}\n", listed), listed


def test_every_line_of_the_lock_is_a_pin_or_a_hash_and_every_pin_has_hashes(root: Path) -> None:
    pins: dict[str, int] = {}
    name = ""
    for line in (root / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if pin := PIN.fullmatch(line):
            name = pin[1]
            assert name not in pins, f"{name} is pinned twice"
            pins[name] = 0
        else:
            assert HASH.fullmatch(line), line
            pins[name] += 1
    assert pins
    assert [name for name, hashes in pins.items() if hashes == 0] == []


def test_the_lock_names_no_address(root: Path) -> None:
    assert ADDRESS.findall((root / "requirements.lock").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org/simple",
        "--find-links wheels",
        "-e .",
        "bezant @ file:///bezant",
        "/wheels/numpy.whl",
        "# from http://example.org",
    ],
)
def test_the_address_rule_finds(line: str) -> None:
    assert ADDRESS.search(f"numpy==2.4.6 \\\n{line}\n")


def test_everything_that_the_project_needs_is_locked(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    names = {re.split(r"[^A-Za-z0-9._-]", need, maxsplit=1)[0].lower() for need in needs} - {project["name"]}
    locked = set(re.findall(r"^([a-z0-9][a-z0-9._-]*)==", (root / "requirements.lock").read_text(), re.MULTILINE))
    assert names - locked == set()
