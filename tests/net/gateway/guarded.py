"""A node that asks for tokens, and an administrator, for the tests of gateways before it."""

import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bezant.cli.node_process import NodeProcess
from bezant.cli.tokens import new_token

from ..server.process import SMALL

COMMAND_S = 60


def create_token(addresses: str, admin: Path, out: Path, *options: str) -> str:
    """A new token, which is in a file besides, made by whoever's is in another."""
    command = [sys.executable, "-m", "bezant", "tokens", "create", *options, "--out", str(out)]
    command += ["--connect", addresses, "--token-file", str(admin)]
    subprocess.run(command, check=True, timeout=COMMAND_S, capture_output=True)
    return out.read_text().strip()


class GuardedNode:
    """See the module. `shown` are the options with which commands, and gateways, ask it."""

    def __init__(self, folder: Path, options: Sequence[str] = (), shown: Sequence[str] = ()) -> None:
        self.folder = folder
        cluster = folder / "cluster"
        self.admin = new_token()[0]
        cluster.write_text(self.admin)
        cluster.chmod(stat.S_IRUSR | stat.S_IWUSR)
        self.node = NodeProcess(folder / "data", arguments=(*SMALL, f"--cluster-token-file={cluster}", *options))
        self._shown = [*shown, "--token-file", str(cluster)]
        self.shown = list(shown)

    def __enter__(self) -> Self:
        self.node.__enter__()
        self.shown += ["--token-file", str(self.file_of("gateway", "--scopes", "read"))]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.node.__exit__(kind, error, trace)

    @property
    def address(self) -> str:
        return self.node.address

    def command(self, *words: str) -> str:
        """What `bezant` prints to the administrator."""
        command = [sys.executable, "-m", "bezant", *words, "--connect", self.address, *self._shown]
        return subprocess.run(command, check=True, timeout=COMMAND_S, capture_output=True, text=True).stdout

    def file_of(self, name: str, *options: str) -> Path:
        """A file with a new token."""
        out = self.folder / name
        self.command("tokens", "create", *options, "--out", str(out))
        return out

    def create(self, name: str, *options: str) -> str:
        """A new token."""
        return self.file_of(name, *options).read_text().strip()
