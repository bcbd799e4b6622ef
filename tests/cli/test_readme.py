"""What the README tells a newcomer to type works as it is written, and its links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import bezant

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (
    README,
    ROOT / "bezant" / "cli" / "README.md",
    ROOT / "operations" / "README.md",
    ROOT / "tests" / "data" / "README.md",
)
ADDRESS = "127.0.0.1:7420"
PRINTED = {
    "50.00 EUR  held 0.00  limit 0.00",
    "50.00 EUR  held 20.00  limit 0.00",
    "35.00 EUR from wallet:ann to bank:main",
    "name,currency,balance,held,limit",
}
"""Comments that promise the first line of what a command prints."""
HOLDING = """
import asyncio, bezant
{example}
async def main():
    async with bezant.connect({address!r}) as wallet:
        await wallet.open_account("shop:1", "EUR")
        await pay(wallet)
asyncio.run(main())
"""
FOLLOWING = """
import asyncio, bezant, builtins
{example}
told = []
def print(*words):
    builtins.print(*words)
    told.append(words)
    if len(told) == 3:
        raise EOFError
async def main():
    async with bezant.connect({address!r}) as wallet:
        try:
            await asyncio.wait_for(follow(wallet, 0), 60)
        except EOFError:
            pass
asyncio.run(main())
"""
"""The example goes on for ever; here, until it has told three events."""


ASK_NO_NODE = frozenset({"check-receipt"})


def blocks(language: str, heading: str) -> list[str]:
    """The code blocks of a language under a heading of the README."""
    section = README.read_text(encoding="utf-8").split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def run(words: list[str], folder: Path) -> str:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_section(start_node, tmp_path: Path) -> None:
    """Every line in order; the node gets a free port, and what a comment promises is what is printed."""
    lines = [line for line in blocks("sh", "The command line")[0].splitlines() if line.startswith("bezant ")]
    assert lines[0].startswith("bezant serve --data ")
    assert lines[-1].startswith("bezant verify --data ")
    told = set()
    with start_node(reader=True) as node:
        for line in lines[1:-1]:
            command, _, comment = line.partition("#")
            words = shlex.split(command)[1:]
            where = [] if words[0] in ASK_NO_NODE else ["--connect", node.address, "--timeout", "60"]
            out = run([sys.executable, "-m", "bezant", *words, *where], tmp_path)
            if comment.strip() in PRINTED:
                assert out.splitlines()[0] == comment.strip()
                told.add(comment.strip())
        assert node.stop() == 0
    assert told == PRINTED
    assert run([sys.executable, "-m", "bezant", "verify", "--data", str(node.data)], tmp_path)


def test_the_sdk_section(start_node, tmp_path: Path) -> None:
    """The first three examples talk to a node, the embedded one goes on in its folder once it has stopped."""
    example, holding, following, embedded = blocks("python", "The SDK")
    assert ADDRESS in example
    with start_node(reader=True) as node:
        out = run([sys.executable, "-c", example.replace(ADDRESS, node.address)], tmp_path)
        assert "12.50" in out
        out = run([sys.executable, "-c", HOLDING.format(example=holding, address=node.address)], tmp_path)
        committed = bezant.Outcome.COMMITTED
        assert out.splitlines() == [f"{committed} 5.00", f"{committed} 4.00", f"{committed} 0.12"]
        assert f"# {committed} 5.00;" in holding
        told = run([sys.executable, "-c", FOLLOWING.format(example=following, address=node.address)], tmp_path)
        assert [line.split()[:2] for line in told.splitlines()] == [
            ["OPEN", "0.00"],
            ["TRANSFER", "12.50"],
            ["HOLD", "10.00"],
        ]
        assert node.stop() == 0
    body = "".join(f"    {line}\n" for line in embedded.replace('"books"', repr(str(node.data))).splitlines())
    run([sys.executable, "-c", f"import asyncio, bezant\nasync def main():\n{body}asyncio.run(main())"], tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target
