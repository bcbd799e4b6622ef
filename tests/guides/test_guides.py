"""Every command of the guides works as it is written, and every link leads somewhere."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bezant
from bezant.cli.node_process import NodeProcess

from .running import GUIDES, blocks_of, run_page

LIBRARIES = frozenset({"os", "socket", "struct", "sys", "time", "blake3", "xxhash"})


def test_the_client_from_the_specification_works_and_uses_nothing_of_ours(node: NodeProcess) -> None:
    program, expected = blocks_of(GUIDES / "CLIENT.md", "python", "text")
    imported = re.findall(r"^(?:import|from) (\w+)", program.text, re.MULTILINE)
    assert set(imported) <= LIBRARIES
    assert "__import__" not in program.text
    assert run_program(program.text, node.address, "-I") == expected.text


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    """A node without a reader."""
    with NodeProcess(
        tmp_path / "data", arguments=("--no-reader", "--segment-size-mib", "8", "--ids-memory-mib", "64")
    ) as running:
        yield running


def run_program(text: str, argument: str, *options: str) -> str:
    """What a program of a page prints."""
    command = [sys.executable, *options, "-c", text, argument]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_of_low_latency(node: NodeProcess) -> None:
    (program,) = blocks_of(GUIDES / "LATENCY.md", "python")
    alone, together, committed, balance = run_program(program.text, node.address).splitlines()
    assert alone.startswith("one after the other: ")
    assert together.startswith("at the same time: ")
    assert (committed, balance) == ("2000 committed", "20.20")


def test_the_example_of_embedding(tmp_path: Path) -> None:
    (program,) = blocks_of(GUIDES / "EMBEDDING.md", "python")
    committed, rejected = bezant.Outcome.COMMITTED, bezant.Outcome.REJECTED
    assert run_program(program.text, str(tmp_path / "books")).splitlines() == [
        f"{committed} True True",
        f"{rejected} INSUFFICIENT_FUNDS",
        "12.50",
    ]


def test_the_operators_session(tmp_path: Path) -> None:
    """From keys to the loss of the majority, on one group."""
    run_page(GUIDES / "OPERATORS.md", tmp_path)


@pytest.mark.parametrize("page", sorted(GUIDES.glob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target
