"""`bezant demo`: the main job on real input, from an empty folder to a proof, and a summary in plain words.

Each step prints what it found; the exit status is 0 only if every finding is as promised. The node runs in a process
of its own and is spoken to over TCP, as any client would.
"""

import argparse
import asyncio
import shutil
import signal
import textwrap
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn

from bezant.cli.errors import CommandFailed
from bezant.cli.output import write_at_once
from bezant.cli.progress import progress
from bezant.cli.session import positive_count, run_async
from bezant.protocol.errors import UsageError

if TYPE_CHECKING:
    import bezant
    from bezant.cli.demo_load import Acknowledged, Batch, DemoLoad

FILE_NAME: Final = "tests/data/czech_bank_1993_1994.csv.gz"
OVERDRAFT: Final = ["account:*"]
"""The bank let 75 of its clients' bookings go below zero; so must we, to follow its books."""

TRANSFERS: Final = 1_000_000
WALLETS: Final = 10_000
WALLETS_MIN: Final = 2
ACKNOWLEDGED_BEFORE_CRASH: Final = 20
EVENT_SAMPLE: Final = 200
CONNECT_TIMEOUT_S: Final = 10.0
STATUS_TERMINATED: Final = 128 + signal.SIGTERM
INDENT: Final = "      "


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant demo`."""
    parser = subparsers.add_parser(
        "demo",
        description="Start a node on a temporary folder, import a bank's books over TCP and check every balance that"
        " the bank recorded, push a million transfers, kill the node under load, restart it, show that all that was"
        " acknowledged is there, and verify the whole history.",
    )
    parser.add_argument("--file", type=Path, help=f"the bank's books (default: {FILE_NAME} of the checkout)")
    parser.add_argument(
        "--transfers",
        metavar="N",
        type=positive_count,
        default=TRANSFERS,
        help="how many transfers to push (default: %(default)s)",
    )
    parser.add_argument("--wallets", metavar="N", type=positive_count, default=WALLETS, help=argparse.SUPPRESS)


class Findings:
    """What the demo found, printed as it is found; `summary` collects what the last page says."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.summary: list[str] = []
        self._width = min(shutil.get_terminal_size().columns, 120)
        self._started_s = time.monotonic()
        self._step = 0

    @property
    def seconds(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._started_s

    def step(self, title: str) -> None:
        """Announce what happens next."""
        self._step += 1
        write_at_once(f"\n{self._step}. {title}")

    def note(self, sentence: str) -> None:
        """Say something that is neither right nor wrong."""
        self._write(INDENT, sentence)

    def check(self, holds: bool, sentence: str) -> None:
        """Say whether a promise holds, and remember it if not."""
        self._write("  ok  " if holds else "  NO  ", sentence)
        if not holds:
            self.failed.append(sentence)

    def tell_summary(self) -> int:
        """Say in plain words what was shown; returns the exit status."""
        if self.failed:
            write_at_once(f"\nNot every promise held ({self.seconds:.0f} s). These did not:")
            for sentence in self.failed:
                self._write("  NO  ", sentence)
            return 1
        write_at_once(f"\nEvery promise held ({self.seconds:.0f} s):")
        for sentence in self.summary:
            self._write("    - ", sentence)
        return 0

    def _write(self, start: str, sentence: str) -> None:
        write_at_once(textwrap.fill(sentence, self._width, initial_indent=start, subsequent_indent=INDENT))


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; 0 if every promise held."""
    if arguments.wallets < WALLETS_MIN:
        raise UsageError(f"a transfer needs {WALLETS_MIN} wallets at least")
    from bezant.cli.import_file import ImportFile

    file = arguments.file or _default_file()
    ImportFile(file, {}).check_header()  # rather before a node is started
    findings = Findings()
    with _leaving_on_sigterm(), TemporaryDirectory(prefix="bezant-demo-") as folder:
        data = Path(folder) / "data"
        run_async(_Demo(findings, Path(folder), file, arguments.transfers, arguments.wallets).run())
        _verify(findings, data)
    return findings.tell_summary()


@contextmanager
def _leaving_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an ordinary exit while the block runs, so that neither node nor folder is left behind."""

    def leave(_number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(STATUS_TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _default_file() -> Path:
    """The bank's books in the checkout that this package runs from. Raises `CommandFailed`."""
    import bezant

    checkout = Path(bezant.__file__).resolve().parents[1]
    file = checkout / FILE_NAME
    if not file.is_file():
        raise CommandFailed(f"the bank's books are not at {file}", "name them: bezant demo --file FILE.csv.gz")
    return file


class _Demo:
    """The steps that need a node, and what they hand to each other."""

    def __init__(self, findings: Findings, folder: Path, file: Path, transfer_count: int, wallet_count: int) -> None:
        from bezant.cli.demo_load import DemoLoad

        self._findings = findings
        self._data = folder / "data"
        self._log_path = folder / "node.log"
        self._file = file
        self._transfer_count = transfer_count
        self._load: DemoLoad = DemoLoad(wallet_count)
        self._acknowledged: list[Acknowledged] = []
        self._unanswered: list[Batch] = []

    async def run(self) -> None:
        """Everything up to the clean stop of the node."""
        await self._before_crash()
        await self._after_crash()

    async def _before_crash(self) -> None:
        import bezant
        from bezant.cli.demo_load import push_until_crash
        from bezant.cli.node_process import NodeProcess

        findings = self._findings
        findings.step("Start a node on an empty folder (the first start on a machine compiles the kernels)")
        started_s = time.monotonic()
        async with NodeProcess(self._data, log_path=self._log_path) as node:
            findings.note(f"it listens on {node.address} after {time.monotonic() - started_s:.1f} s")
            async with bezant.connect(node.address, timeout_s=CONNECT_TIMEOUT_S) as wallet:
                if not (await wallet.statistics()).durable:
                    findings.note("the folder is on a file system in memory: it survives this crash, but no power cut")
                await self._import_books(wallet)
                await self._push_transfers(wallet)
                findings.step("Kill the node with SIGKILL while more transfers are on their way")
                self._acknowledged, self._unanswered = await push_until_crash(
                    wallet, self._load, ACKNOWLEDGED_BEFORE_CRASH, node.kill
                )
        acknowledged = _count(entry.batch for entry in self._acknowledged)
        findings.note(f"{acknowledged:,} transfers were acknowledged by then, {_count(self._unanswered):,} were not")

    async def _import_books(self, wallet: "bezant.Wallet") -> None:
        from bezant.cli.import_command import import_csv, overdraft_allowed, report_lines

        findings = self._findings
        findings.step(f"Import a bank's books, {self._file.name}, over TCP")
        file, report = await import_csv(wallet, self._file, overdraft_allowed(OVERDRAFT))
        for line in report_lines(file, report):
            findings.note(line)
        findings.check(
            report.committed == report.rows > 0, f"all {report.rows:,} rows are booked, with the dates they had"
        )
        findings.check(
            report.balances_checked == report.rows and not report.mismatches,
            f"after each of {report.balances_checked:,} rows the balance is the one that the bank itself recorded",
        )
        findings.summary.append(
            f"{report.rows:,} rows of a bank's books were booked, and after each the balance is the one that the bank"
            " itself recorded"
        )

    async def _push_transfers(self, wallet: "bezant.Wallet") -> None:
        from bezant.cli.demo_load import push

        findings = self._findings
        findings.step(f"Push {self._transfer_count:,} transfers between {len(self._load.names):,} wallets")
        await self._load.open_wallets(wallet)
        started_s = time.perf_counter()
        with progress("transferring", total=self._transfer_count, unit="transfers") as bar:
            committed = await push(wallet, self._load, self._transfer_count, bar.advance)
        seconds = time.perf_counter() - started_s
        pace = f"{committed:,} transfers in {seconds:.1f} s, {committed / seconds:,.0f} a second"
        findings.check(committed == self._transfer_count, f"all committed: {pace}")
        findings.summary.append(f"{pace}, each answered only once it was in the synced log")

    async def _after_crash(self) -> None:
        import bezant
        from bezant.cli.node_process import NodeProcess

        findings = self._findings
        findings.step("Restart it on the same folder and ask for everything again")
        started_s = time.monotonic()
        async with NodeProcess(self._data, log_path=self._log_path) as node:
            findings.note(f"it recovered and listens after {time.monotonic() - started_s:.1f} s")
            async with bezant.connect(node.address, timeout_s=CONNECT_TIMEOUT_S) as wallet:
                await self._check_acknowledged(wallet)
                await self._settle_unanswered(wallet)
                await self._check_books(wallet)
            await node.stop()
        findings.note("the node stopped cleanly on SIGTERM")

    async def _check_acknowledged(self, wallet: "bezant.Wallet") -> None:
        """Send what was acknowledged once more: each must answer as a repeat of its first outcome."""
        from bezant.cli.demo_load import is_same_outcome

        findings = self._findings
        same = 0
        for entry in self._acknowledged:
            again = await wallet.submit(entry.batch.commands)
            same += len(again) if is_same_outcome(entry.results, again) else 0
            self._load.book(entry.batch, entry.results)
        total = _count(entry.batch for entry in self._acknowledged)
        findings.check(
            same == total,
            f"{same:,} of {total:,} transfers acknowledged before the crash are there, at the same positions, with the"
            " same balances; asked again, none was done twice",
        )
        findings.summary.append(f"the node was killed under load; all {total:,} transfers acknowledged are there")
        found = await self._find_events(wallet)
        findings.check(
            found == EVENT_SAMPLE, f"{found} of {EVENT_SAMPLE} of them, looked up as events by their ids, are the same"
        )

    async def _find_events(self, wallet: "bezant.Wallet") -> int:
        """How many of a sample of the acknowledged transfers are found as the events that they were answered as."""
        from bezant.cli.demo_load import CURRENCY
        from bezant.protocol.records import id_bytes

        async def is_there(number: int) -> bool:
            entry = self._acknowledged[number % len(self._acknowledged)]
            row = number * 37 % len(entry.batch.commands)
            command, result = entry.batch.commands[row], entry.results[row]
            payer = self._load.names[int(entry.batch.payers[row])]
            event = await wallet.event(id_bytes(command["id_head"], command["id_tail"]), payer, CURRENCY)
            return (
                event is not None
                and event.position == result["position"]
                and event.amount == command["amount"]
                and event.debit_balance == result["debit_balance"]
            )

        return sum(await asyncio.gather(*(is_there(number) for number in range(EVENT_SAMPLE))))

    async def _settle_unanswered(self, wallet: "bezant.Wallet") -> None:
        """Send what was not acknowledged again, as a client should: each is then done exactly once."""
        from bezant.protocol.kinds import ResultFlag

        done = survived = 0
        for batch in self._unanswered:
            results = await wallet.submit(batch.commands)
            done += self._load.book(batch, results)
            survived += int(((results["flags"] & ResultFlag.REPEATED) != 0).sum())
        total = _count(self._unanswered)
        self._findings.check(
            done == total,
            f"of {total:,} not acknowledged, {survived:,} had reached the disk and {total - survived:,} had not; sent"
            " again with the same ids, each is now done once",
        )
        self._findings.summary.append(
            f"{total:,} transfers were on their way when it was killed; sent again, each was done exactly once"
        )

    async def _check_books(self, wallet: "bezant.Wallet") -> None:
        from bezant.cli.import_command import import_csv, overdraft_allowed

        findings = self._findings
        _, report = await import_csv(wallet, self._file, overdraft_allowed(OVERDRAFT))
        findings.check(
            report.ok and report.repeated == report.rows == report.balances_checked,
            f"the bank's file, imported again, is recognised row by row: {report.repeated:,} repeated,"
            f" {report.committed:,} booked anew, every recorded balance still the same",
        )
        accounts = [account async for account in wallet.accounts()]
        findings.check(*_compare_wallets(self._load, accounts))
        sums: dict[str, int] = {}
        for account in accounts:
            sums[account.currency] = sums.get(account.currency, 0) + account.balance
        findings.check(
            not any(sums.values()),
            f"the balances of all {len(accounts):,} accounts sum to zero in each currency ({', '.join(sorted(sums))})",
        )


def _count(batches: "Iterable[Batch]") -> int:
    return sum(len(batch.commands) for batch in batches)


def _compare_wallets(load: "DemoLoad", accounts: "list[bezant.Account]") -> tuple[bool, str]:
    """Compare the balance of every wallet with the demo's own sum over what was committed."""
    balances = {account.name: account.balance for account in accounts}
    equal = sum(
        balances.get(name) == expected for name, expected in zip(load.names, load.expected.tolist(), strict=True)
    )
    return (
        equal == len(load.names),
        f"{equal:,} of {len(load.names):,} wallets hold exactly what the demo's own books say",
    )


def _verify(findings: Findings, data: Path) -> None:
    from bezant.engine.verify import verify
    from bezant.protocol.errors import CorruptLog

    findings.step("Verify: the whole history once more through the rules, every byte compared")
    try:
        with progress("verifying", total=0, unit="events") as bar:
            report = verify(data, bar.update)
    except CorruptLog as error:
        findings.check(False, f"the history does not verify: {error}")
        return
    findings.check(
        report.events > 0,
        f"{report.events:,} events in {report.entries:,} entries re-executed in {report.seconds:.1f} s:"
        " checksums, hash chain, balances and back-pointers are all as the rules make them",
    )
    findings.summary.append(f"the history of {report.events:,} events proves every balance, byte for byte")
