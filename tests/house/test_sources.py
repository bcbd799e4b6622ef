"""Claim: the sources keep the house rules that style checkers do not know."""

import ast
from pathlib import Path

import pytest

LINES_MAX = 600
# The specification is looked up in rather than read through, and one file has all that a client needs.
LINES_MAX_OF = {"protocol/README.md": 700}
TEXT_SUFFIXES = {".py", ".md", ".toml"}
# What every process has to say goes through it.
LOGS = "net/logs.py"
PRODUCT = ("protocol/", "engine/", "net/", "bezant/")


def asserts(path: str, tree: ast.Module) -> list[str]:
    """Statements that `python -O` would drop."""
    return [f"{path}:{node.lineno} asserts" for node in ast.walk(tree) if isinstance(node, ast.Assert)]


def prints(path: str, tree: ast.Module) -> list[str]:
    """Uses of print, called or handed on, and of the standard streams."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "print":
            found.append(f"{path}:{node.lineno} prints")
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"sys.stdout", "sys.stderr"}:
            found.append(f"{path}:{node.lineno} writes to {ast.unparse(node)}")
    return found


def test_no_file_is_too_long_to_read(root: Path, trees: dict[str, ast.Module]) -> None:
    folders = {(root / path).parent for path in trees} | {root}
    texts = {path for folder in folders for path in folder.iterdir() if path.suffix in TEXT_SUFFIXES}
    assert len(texts) >= len(trees)
    lengths = {path.relative_to(root).as_posix(): len(path.read_bytes().splitlines()) for path in sorted(texts)}
    assert {path: length for path, length in lengths.items() if length > LINES_MAX_OF.get(path, LINES_MAX)} == {}


def test_no_check_of_the_product_can_be_switched_off(trees: dict[str, ast.Module]) -> None:
    own = {path: tree for path, tree in trees.items() if path.startswith(PRODUCT)}
    assert [fault for path, tree in own.items() for fault in asserts(path, tree)] == []


def test_only_the_command_line_prints(trees: dict[str, ast.Module]) -> None:
    own = {
        path: tree
        for path, tree in trees.items()
        if path.startswith((*PRODUCT, "perf/")) and not path.startswith("bezant/cli/") and path != LOGS
    }
    assert [fault for path, tree in own.items() for fault in prints(path, tree)] == []


def test_every_source_says_what_it_is_for(trees: dict[str, ast.Module]) -> None:
    silent = [path for path, tree in trees.items() if tree.body and ast.get_docstring(tree) is None]
    assert silent == []


@pytest.mark.parametrize("source", ["assert 1", "def check():\n    assert False, 'no'"])
def test_the_assert_rule_finds(source: str) -> None:
    assert len(asserts("engine/a.py", ast.parse(source))) == 1


@pytest.mark.parametrize("source", ["print('x')", "say = print", "import sys\nsys.stderr.write('x')"])
def test_the_print_rule_finds(source: str) -> None:
    assert len(prints("net/a.py", ast.parse(source))) == 1


def test_the_print_rule_allows_what_only_sounds_like_it() -> None:
    assert prints("net/a.py", ast.parse("fingerprint = pprint.pformat(self.print)")) == []
