"""Runs a node, a gateway before it, and wrk; and the empty answer beside them, in turns, on the same machine."""

import re
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

import bezant
from bezant.cli.errors import CommandFailed
from bezant.cli.node_process import NodeProcess
from bezant.cli.ports import free_ports
from bezant.net.client.results import UNLIMITED
from bezant.perf.load.processes import ChildProcess
from bezant.perf.load.processor import process_cpu_seconds

ACCOUNT_COUNT: Final = 100
RATIO_MIN: Final = 0.6
LATENCY_MS_P99_MAX: Final = 30.0
_START_S_MAX: Final = 60.0
_STOP_S_MAX: Final = 20.0
_SCRIPT: Final = Path(__file__).parent / "transfers.lua"
_READY: Final = b"listening on "
_TRANSFERS: Final = "/v1/wallet/balance_transfer"
_MS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3}


class GatewaySettings(msgspec.Struct, frozen=True):
    """How much: connections of wrk, seconds of each load, and rounds of both, in turns, after one that warms up."""

    connections: int = 64
    seconds: float = 5.0
    rounds: int = 3
    directory: Path | None = None


class Load(msgspec.Struct, frozen=True):
    """What wrk saw in one round; ``processor_us`` is processor time of the server for each request."""

    rate: float
    latency_ms_p50: float
    latency_ms_p99: float
    failed: int
    processor_us: float


class GatewayReport(msgspec.Struct, frozen=True):
    """All rounds, and the medians of what they say. ``ratio``: transfers over empty answers, by their rates;
    ``processor_ratio`` the same by the processor time of the server alone, which a busy machine changes less.
    """

    connections: int
    seconds: float
    transfers: list[Load]
    empty: list[Load]
    ratio: float
    processor_ratio: float
    latency_ms_p99: float
    node_processor_us: float

    @property
    def failed(self) -> int:
        """Requests that were not answered with success."""
        return sum(load.failed for load in [*self.transfers, *self.empty])

    def rows(self) -> list[tuple[str, str, str]]:
        """(what, measured, target) for people."""
        transfers, empty = _middle(self.transfers), _middle(self.empty)
        return [
            (f"durable transfers by HTTP, {self.connections} connections", f"{transfers.rate:,.0f}/s", ""),
            ("empty answers of the same framework", f"{empty.rate:,.0f}/s", ""),
            ("the one over the other", f"{self.ratio:.2f}", f"{RATIO_MIN:g}"),
            (
                "latency p50 / p99",
                f"{transfers.latency_ms_p50:.1f} / {self.latency_ms_p99:.1f} ms",
                f"p99 {LATENCY_MS_P99_MAX:g} ms",
            ),
            (
                "processor time a request: gateway / node / empty answer",
                f"{transfers.processor_us:.0f} / {self.node_processor_us:.0f} / {empty.processor_us:.0f} us",
                "",
            ),
        ]


def measure_gateway(settings: GatewaySettings, say: Callable[[str], None]) -> GatewayReport:
    """Measure. Raises `CommandFailed` if wrk is not there, or a process does not start."""
    if shutil.which("wrk") is None:
        raise CommandFailed("this needs wrk, which loads by HTTP", "install it: apt-get install wrk")
    with (
        tempfile.TemporaryDirectory(prefix="bezant-bench-", dir=settings.directory) as folder,
        NodeProcess(Path(folder) / "data", arguments=("--no-reader",)) as node,
    ):
        _open_accounts(node.address)
        command = [sys.executable, "-m", "bezant", "gateway", "--connect", node.address, "--listen", "127.0.0.1:0"]
        # The load comes from one client, who is not to be told that this is more than a client's share.
        command += ["--client-rate", "1000000"]
        with ChildProcess("the gateway", command, _STOP_S_MAX) as gateway:
            url = gateway.read_line(_START_S_MAX).removeprefix(_READY).decode().strip()
            (port,) = free_ports(1)
            with ChildProcess("the empty answer", _empty_command(port), _STOP_S_MAX) as empty:
                _await_port(port)
                servers = [
                    (gateway.process_id, url + _TRANSFERS),
                    (empty.process_id, f"http://127.0.0.1:{port}/empty"),
                ]
                return _in_turns(settings, say, servers, node.process_id)


def _in_turns(
    settings: GatewaySettings, say: Callable[[str], None], servers: list[tuple[int, str]], node_id: int
) -> GatewayReport:
    loads: tuple[list[Load], list[Load]] = ([], [])
    node_us = []
    for number in range(settings.rounds + 1):
        say(f"round {number} of {settings.rounds}" if number else "warming up")
        for (process_id, url), found in zip(servers, loads, strict=True):
            before_s = _processor_s(node_id)
            load, count = _run_wrk(settings, process_id, url)
            if number:
                found.append(load)
                if found is loads[0]:
                    node_us.append((_processor_s(node_id) - before_s) * 1e6 / count)
    transfers, empty = loads
    return GatewayReport(
        connections=settings.connections,
        seconds=settings.seconds,
        transfers=transfers,
        empty=empty,
        ratio=statistics.median(load.rate for load in transfers) / statistics.median(load.rate for load in empty),
        processor_ratio=statistics.median(load.processor_us for load in empty)
        / statistics.median(load.processor_us for load in transfers),
        latency_ms_p99=statistics.median(load.latency_ms_p99 for load in transfers),
        node_processor_us=statistics.median(node_us),
    )


def _run_wrk(settings: GatewaySettings, process_id: int, url: str) -> tuple[Load, int]:
    """One load; and how many requests that were. Raises `CommandFailed` if wrk does not say what it did."""
    command = ["wrk", "--threads", "1", "--connections", str(settings.connections)]
    command += ["--duration", f"{max(1, round(settings.seconds))}s", "--latency", "--script", str(_SCRIPT), url]
    before_s = _processor_s(process_id)
    done = subprocess.run(
        [*command, "--", secrets.token_hex(8)],
        capture_output=True,
        text=True,
        timeout=settings.seconds + _START_S_MAX,
        check=False,
    )
    used_s = _processor_s(process_id) - before_s
    count = re.search(r"([0-9]+) requests in", done.stdout)
    rate = re.search(r"Requests/sec: *([0-9.]+)", done.stdout)
    if done.returncode or count is None or rate is None or not int(count[1]):
        told = (done.stderr or done.stdout).strip()[-500:]
        raise CommandFailed(f"wrk failed: {told}", "see to the server that it loads")
    refused = re.search(r"Non-2xx or 3xx responses: ([0-9]+)", done.stdout)
    broken = re.search(r"Socket errors: connect ([0-9]+), read ([0-9]+), write ([0-9]+), timeout ([0-9]+)", done.stdout)
    failed = (int(refused[1]) if refused else 0) + (sum(map(int, broken.groups())) if broken else 0)
    p50, p99 = _latency_ms("50", done.stdout), _latency_ms("99", done.stdout)
    return Load(float(rate[1]), p50, p99, failed, used_s * 1e6 / int(count[1])), int(count[1])


def _latency_ms(percent: str, text: str) -> float:
    found = re.search(rf"^ +{percent}% +([0-9.]+)(us|ms|s|m)$", text, re.MULTILINE)
    if found is None:
        raise CommandFailed("wrk did not say how long answers took", "use wrk 4")
    return float(found[1]) * _MS[found[2]]


def _open_accounts(address: str) -> None:
    with bezant.connect_blocking(address) as wallet:
        opened = [wallet.open_account("bench:world", "EUR", limit=UNLIMITED)]
        opened += [wallet.open_account(f"bench:{number}", "EUR") for number in range(ACCOUNT_COUNT)]
    if not all(result.committed for result in opened):
        raise CommandFailed("the accounts could not be opened", "look at the node")


def _empty_command(port: int) -> list[str]:
    command = [sys.executable, "-m", "uvicorn", "bezant.perf.gateway.empty:application", "--port", str(port)]
    return [*command, "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error"]


def _await_port(port: int) -> None:
    end_s = time.monotonic() + _START_S_MAX
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError as error:
            if time.monotonic() > end_s:
                raise CommandFailed("the empty answer does not listen", "look at uvicorn") from error
        time.sleep(0.05)


def _processor_s(process_id: int) -> float:
    seconds = process_cpu_seconds(process_id)
    if seconds is None:
        raise CommandFailed("the system does not tell the processor time of processes", "measure on Linux")
    return seconds


def _middle(loads: list[Load]) -> Load:
    return sorted(loads, key=lambda load: load.rate)[len(loads) // 2]
