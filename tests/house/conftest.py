"""What the house rules look at: every Python source of the repository, parsed once."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("protocol", "engine", "net", "bezant", "perf", "tests")


@pytest.fixture(scope="session")
def root() -> Path:
    """The top folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def trees() -> dict[str, ast.Module]:
    """Syntax trees by path from the top folder, such as ``engine/log/segment.py``; each file once."""
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"), str(path))
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        # bezant/engine and so on are links to folders that are listed themselves; older Pythons follow them.
        if not any((ROOT / parent).is_symlink() for parent in path.relative_to(ROOT).parents)
    }
