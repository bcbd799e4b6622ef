"""Runs what a guide tells its reader to type, as it is written, in an empty folder.

All `sh` blocks of a page are one script of bash, which ends at the first command that fails. A `text` block is what the
block before it prints: its lines are in the output of that, in their order, among others. `console` blocks need
services or rights of a real machine, and are the only ones that are not run. Ports are replaced by free ones, and nodes
have small files of the log, little memory and no readers, which would take half of the time; who asks again and again
does so sooner.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from bezant.cli.ports import free_ports

ROOT: Final = Path(__file__).parents[2]
GUIDES: Final = ROOT / "guides"
_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_ADDRESS: Final = re.compile(r"\b127\.0\.0\.1:(\d{4,5})\b")
_SMALL: Final = ("[serve]\n", "[serve]\nsegment_size_mib = 8\nids_memory_mib = 64\nreader = false\n")
_SOON: Final = ("; do sleep 1; done", "; do sleep 0.1; done")
_MARK: Final = "@@ block"
TIMEOUT_S: Final = 600


class Block(NamedTuple):
    """A block of code of a page."""

    language: str
    text: str


def blocks_of(page: Path, *languages: str) -> list[Block]:
    """The blocks of these languages, in order."""
    found = [Block(language, text) for language, text in _BLOCK.findall(page.read_text(encoding="utf-8"))]
    return [block for block in found if block.language in languages]


def run_page(page: Path, folder: Path) -> str:
    """Run the `sh` blocks of a page, and compare with its `text` blocks; returns all that was printed."""
    blocks = with_free_ports(blocks_of(page, "sh", "text"))
    script = ["set -euo pipefail"]
    for number, block in enumerate(blocks):
        if block.language == "sh":
            script += [f"echo '{_MARK} {number}'", block.text]
    output = _run_script("\n".join(script), folder)
    for number, block in enumerate(blocks):
        if block.language == "text":
            _compare(output.split(f"{_MARK} {number - 1}\n")[1].split(_MARK)[0], block.text)
    return output


def with_free_ports(blocks: list[Block]) -> list[Block]:
    """The same with a free port for each that is named at 127.0.0.1."""
    named = sorted({port for block in blocks for port in _ADDRESS.findall(block.text)})
    replaced = dict(zip(named, free_ports(len(named)), strict=True))
    return [
        Block(
            block.language,
            _ADDRESS.sub(lambda match: f"127.0.0.1:{replaced[match[1]]}", block.text).replace(*_SMALL).replace(*_SOON),
        )
        for block in blocks
    ]


def _compare(printed: str, expected: str) -> None:
    lines = iter(printed.splitlines())
    for line in expected.splitlines():
        assert any(line.strip() == other.strip() for other in lines), f"{line!r} was not printed, but:\n{printed}"


def _run_script(script: str, folder: Path) -> str:
    tools = folder / ".tools"
    tools.mkdir()
    for name, words in (("bezant", "-m bezant"), ("python", "")):
        tool = tools / name
        tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        tool.chmod(0o755)
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    (folder / ".script").write_text(script)
    with (folder / ".output").open("w+") as output:
        process = subprocess.Popen(
            ["bash", str(folder / ".script")],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(TIMEOUT_S)
        finally:
            # What the script has left running is of its session, and of nobody else's.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        output.seek(0)
        printed = output.read()
    assert status == 0, f"status {status}:\n{printed[-4000:]}"
    return printed
