"""Entry point of the command line: finds the command, loads its module alone, and turns exceptions into one line.

Exit statuses: 0 done, 1 not done (the one line on stderr says whose fault it was and what to do next), 2 the command
line itself is wrong, 130 interrupted.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol, cast

from bezant.cli.access import MEASURES, add_access_arguments, use_access
from bezant.cli.errors import STATUS_INTERRUPTED, describe, disk_error, exit_status
from bezant.cli.loading import loading
from bezant.protocol.errors import BezantError


class _Command(NamedTuple):
    """A command as `bezant --help` lists it; its arguments stand in its module."""

    module: str
    summary: str


COMMANDS: Final[dict[str, _Command]] = {
    "serve": _Command("serve", "run a node on a data folder"),
    "reader": _Command("reader", "tell clients what has happened, beside a node or without one"),
    "gateway": _Command("gateway", "take requests by HTTP, in front of a node or a group of nodes"),
    "config": _Command("config", "check a file of settings, or explain all settings there are"),
    "webhooks": _Command("webhooks", "have a gateway tell other addresses what happens"),
    "init": _Command("init", "initialise the data folder of a node of a group"),
    "cluster": _Command("cluster", "run a group of nodes on this machine, a process a node"),
    "members": _Command("members", "show the nodes of a group, or change who they are"),
    "tokens": _Command("tokens", "make, list and revoke the tokens with which clients come in"),
    "audit": _Command("audit", "print what was administered, when, and with whose token"),
    "shards": _Command("shards", "show which shard has which slots, and who leads it"),
    "transactions": _Command("transactions", "list the transactions and transfers between shards that have not ended"),
    "import": _Command("import_command", "import a CSV file of dated transfers, with their dates"),
    "accounts": _Command("accounts", "list all accounts with their balances"),
    "balance": _Command("balance", "show one account, as it is or as it was"),
    "statement": _Command("statement", "show what touched an account"),
    "transfers": _Command("transfers", "find transfers by account, currency, code, time or id"),
    "holds": _Command("holds", "list the holds that are open, or were"),
    "totals": _Command("totals", "show the sums of each currency, as they are or as they were"),
    "watch": _Command("watch", "print what happens to accounts as it is committed"),
    "top": _Command("top", "show how all nodes are: how much is done, how long it takes, what waits"),
    "transfer": _Command("transfer", "move an amount from one account to another"),
    "transaction": _Command("transaction", "do several transfers, over any shards, as a whole or not at all"),
    "hold": _Command("hold", "set an amount of one account aside for another"),
    "capture": _Command("capture", "move what is held, or a part of it"),
    "release": _Command("release", "let what is held be free again"),
    "open": _Command("open_account", "open an account"),
    "freeze": _Command("freeze", "keep an account out of every transfer, hold and capture"),
    "unfreeze": _Command("unfreeze", "let a frozen account take part again"),
    "metadata": _Command("metadata", "set, show or erase the metadata of an account or a transfer"),
    "close": _Command("close_account", "close an empty account, for ever"),
    "resolve": _Command("resolve", "settle what became of a command when no answer came"),
    "receipt": _Command("receipt", "write a proof that a transfer is in the history"),
    "check-receipt": _Command("check_receipt", "check such a proof, without asking anyone"),
    "currencies": _Command("currencies", "list the currencies, or register one"),
    "reconcile": _Command("reconcile", "compare a statement from outside with the books"),
    "sql": _Command("sql", "answer a SQL query over the history and the balances"),
    "export": _Command("export", "write the history and the balances to Parquet files"),
    "verify": _Command("verify", "re-execute the whole history of a data folder and compare every byte"),
    "diff": _Command("diff", "execute a history with two versions of Bezant, and show where they part"),
    "snapshot": _Command("snapshot", "make, list and restore snapshots, in a folder or at any URL"),
    "archive": _Command("archive", "keep sealed segments elsewhere, and bring back what a folder lacks"),
    "doctor": _Command("doctor", "explain a data folder, damaged or not, without changing it"),
    "bench": _Command("bench", "measure a node under load"),
    "demo": _Command("demo", "a bank's books, a million transfers, a crash and a proof, in less than a minute"),
}


class _CommandModule(Protocol):
    """What a command module offers."""

    def add_parser(self, subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]", /) -> None: ...

    def run(self, arguments: argparse.Namespace, /) -> int: ...


class _Parser(argparse.ArgumentParser):
    """Takes no abbreviated options: ``--time`` must not begin to mean something else when an option is added."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})
        self.register("action", "parsers", _Actions)


class _Actions(argparse._SubParsersAction):  # type: ignore[type-arg]  # it has none when it runs
    """Lists an action with the first sentence of what it says of itself, where nothing shorter is given."""

    def add_parser(self, name: str, **settings: Any) -> Any:
        """Add an action."""
        summary = str(settings.get("description", "")).partition(". ")[0].removesuffix(".")
        if summary:
            settings.setdefault("help", (summary[0].lower() + summary[1:]).replace("%", "%%"))
        return super().add_parser(name, **settings)


class _ShowVersion(argparse.Action):
    """`--version`; reads the package's metadata only when asked, because finding it takes longer than the rest."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        sys.stdout.write(f"bezant {version('bezant')}\n")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name) and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments, module = _parse(words)
        use_access(arguments)
        status = module.run(arguments)
        sys.stdout.flush()
        return status
    except BezantError as error:
        return _fail(error)
    except BrokenPipeError:
        # The reader of our output has gone (`bezant accounts | head`). Python would complain once more when it flushes
        # stdout on the way out, so give it somewhere to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("bezant: interrupted\n")
        return STATUS_INTERRUPTED
    except OSError as error:
        told = disk_error(error)
        if told is None:
            raise
        return _fail(told)


def _fail(error: BezantError) -> int:
    """Tell an error in one line; returns the exit status."""
    told = f"bezant: {describe(error)}"
    if (logs := sys.modules.get("bezant.net.logs")) is not None and logs.writes_json():
        logs.write_error(told)
    else:
        sys.stderr.write(f"{told}\n")
    return exit_status(error)


def _parse(words: Sequence[str]) -> tuple[argparse.Namespace, _CommandModule]:
    """Parse the command line, loading only the module of the command in it. Ends the process with 2 if it is wrong."""
    parser: argparse.ArgumentParser = _Parser(
        prog="bezant",
        description="A digital-wallet engine: a durable, verifiable ledger. Amounts are exact decimals such as 12.50.",
        epilog="`bezant COMMAND --help` explains a command.",
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    # The top level has no option that takes a value, so the first word without a dash is the command.
    chosen = next((word for word in words if not word.startswith("-")), None)
    module: _CommandModule | None = None
    for name, command in COMMANDS.items():
        if name == chosen:
            with loading():
                module = cast(_CommandModule, importlib.import_module(f"bezant.cli.{command.module}"))
            module.add_parser(subparsers)
            add_access_arguments(subparsers.choices[name], has_tls=name != MEASURES)
        else:
            subparsers.add_parser(name, help=command.summary, add_help=False)
    arguments = parser.parse_args(words)
    if module is None:
        parser.error("a command is required")
    return arguments, module


if __name__ == "__main__":
    sys.exit(main())
