"""What the tests of the command line share: a ledger small enough to be read at once, and files to import."""

import gzip
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from bezant.cli.node_process import LISTEN_ANYWHERE, NODE_COMMAND, WRITE_SIDE_COMMAND
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandKind, ResultFlag
from bezant.protocol.records import COMMAND, LIMIT_UNLIMITED, RESULT, Records

HEADER = (
    "transaction_id,date,from_account,to_account,amount,currency,kind,printed_amount,client_account,"
    "bank_recorded_balance"
)


READY = "listening on "
STOP_TIMEOUT_S = 60
SMALL = ("--segment-size-mib", "8", "--ids-memory-mib", "64")
"""Two segments are written in full, and the memory for ids is touched, before a node takes the first command."""


class Node:
    """`bezant serve` in a process of its own, on a free port; as a context manager it is never left running."""

    def __init__(self, data: Path, *, reader: bool) -> None:
        self.data = data
        command = [*(NODE_COMMAND if reader else WRITE_SIDE_COMMAND), "--data", str(data), "--listen", LISTEN_ANYWHERE]
        command += SMALL
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.address = ""

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(READY):
                self.address = line.removeprefix(READY).strip()
                return self
        raise AssertionError(f"the node ended with status {self.process.wait()} before it listened")

    def stop(self) -> int:
        """Stop it as an operator would; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT_S)

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_TIMEOUT_S)
        if self.process.stdout is not None:
            self.process.stdout.close()


class FakeLedger:
    """The rules that an import meets, one command at a time: openings, transfers, limits, known ids, rising times.

    `codes_forced` answers the command with that number (counted from 0 over all submits) with that code and does
    nothing. `frames` are the arrays that were submitted.
    """

    def __init__(self) -> None:
        self.balances: dict[int, int] = {}
        self.limits: dict[int, int] = {}
        self.first_outcomes: dict[tuple[int, int], tuple[bytes, np.void]] = {}
        self.last_timestamp_ns = 0
        self.codes_forced: dict[int, ResultCode] = {}
        self.frames: list[Records] = []

    async def submit(self, commands: Records, timeout_s: float | None = None) -> Records:
        first = sum(len(frame) for frame in self.frames)
        self.frames.append(commands.copy())
        results = np.zeros(len(commands), RESULT)
        for index, command in enumerate(commands):
            forced = self.codes_forced.get(first + index)
            if forced is not None:
                results["code"][index] = forced
            else:
                self._execute(command, results[index : index + 1])
        return results

    def _execute(self, command: np.void, result: Records) -> None:
        key = (int(command["id_head"]), int(command["id_tail"]))
        known = self.first_outcomes.get(key)
        if known is not None:
            content, outcome = known
            result[0] = outcome
            if content == command.tobytes():
                result["flags"] = ResultFlag.REPEATED
            else:
                first = np.frombuffer(content, COMMAND)[0]
                result["code"] = ResultCode.ID_CONFLICT
                result["detail"] = 5 if first["amount"] != command["amount"] else 11
            return
        if command["client_timestamp_ns"] <= self.last_timestamp_ns:
            result["code"] = ResultCode.IMPORTED_TIMESTAMP_NOT_RISING
            return
        self.last_timestamp_ns = int(command["client_timestamp_ns"])
        result["code"] = self._change(command, result)
        self.first_outcomes[key] = (command.tobytes(), result[0].copy())

    def _change(self, command: np.void, result: Records) -> ResultCode:
        debit, credit, amount = int(command["debit_head"]), int(command["credit_head"]), int(command["amount"])
        if command["kind"] == CommandKind.OPEN:
            if debit in self.balances:
                return ResultCode.ACCOUNT_EXISTS
            self.balances[debit], self.limits[debit] = 0, amount
            return ResultCode.COMMITTED
        if self.limits[debit] != LIMIT_UNLIMITED and self.balances[debit] - amount < -self.limits[debit]:
            code = ResultCode.INSUFFICIENT_FUNDS
        else:
            self.balances[debit] -= amount
            self.balances[credit] += amount
            code = ResultCode.COMMITTED
        result["debit_balance"], result["credit_balance"] = self.balances[debit], self.balances[credit]
        return code


@pytest.fixture
def start_node(tmp_path: Path) -> Callable[..., Node]:
    """Makes a node on one data folder, again and again; use it in ``with``. It has a reader if told so: to start one
    takes longer than to start the node."""
    return lambda *, reader=False: Node(tmp_path / "data", reader=reader)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that the tests of one file share."""
    with Node(tmp_path_factory.mktemp("node") / "data", reader=True) as running:
        yield running
        assert running.stop() == 0


@pytest.fixture
def ledger() -> FakeLedger:
    """An empty ledger."""
    return FakeLedger()


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows under a header to a file: ``write_csv(["1,1993-01-01,..."], header=..., compress=True)``."""

    def write(rows: Sequence[str], header: str = HEADER, *, compress: bool = False) -> Path:
        content = "".join(f"{line}\n" for line in (header, *rows)).encode()
        path = tmp_path / ("books.csv.gz" if compress else "books.csv")
        path.write_bytes(gzip.compress(content) if compress else content)
        return path

    return write


@pytest.fixture(scope="session")
def bank_file() -> Path:
    """A real bank's books; see tests/data/README.md."""
    return Path(__file__).parents[1] / "data" / "czech_bank_1993_1994.csv.gz"
