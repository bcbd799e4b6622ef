"""`bezant watch` prints what happened and what happens; `bezant reader` tells it without a node, too."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bezant.cli.main import main

WAIT_S = 100


def bezant(*words: str) -> list[str]:
    return [sys.executable, "-m", "bezant", *words]


def run(*words: str) -> list[str]:
    """The lines that a command prints, which must succeed."""
    words = (*words, "--timeout", str(WAIT_S)) if words[0] == "watch" else words
    done = subprocess.run(bezant(*words), capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def make_books(address: str) -> None:
    connect = ("--connect", address)
    run("open", "bank", "EUR", "--limit", "unlimited", *connect)
    run("open", "ann", "EUR", *connect)
    run("transfer", "bank", "ann", "12.50", "EUR", *connect)


@pytest.fixture(scope="module")
def address(node) -> str:
    make_books(node.address)
    return str(node.address)


def test_from_the_beginning_as_text(address: str) -> None:
    opened, paid = run("watch", "ann", "--after", "0", "--count", "2", "--connect", address)
    assert opened.split("Z  ")[1] == "open limit 0.00 EUR  ann  [ann 0.00]  2"
    assert paid.split("Z  ")[1] == "transfer 12.50 EUR  bank to ann  [bank -12.50  ann 12.50]  3"


def test_an_account_without_a_limit_is_said_to_have_none(address: str) -> None:
    (opened,) = run("watch", "bank", "--after", "0", "--count", "1", "--connect", address)
    assert opened.split("Z  ")[1] == "open unlimited EUR  bank  [bank 0.00]  1"


def test_filters_and_json(address: str) -> None:
    (line,) = run(
        *("watch", "--kind", "transfer", "--currency", "EUR", "--after", "0", "--count", "1", "--json"),
        *("--connect", address),
    )
    event = json.loads(line)
    assert (event["position"], event["kind"], event["result"], event["amount"]) == (3, "transfer", "COMMITTED", "12.50")
    assert (event["debit"], event["credit"], event["credit_balance"]) == ("bank", "ann", "12.50")


def test_an_account_that_is_not_there_is_said_to_be_waited_for(address: str) -> None:
    watch = bezant("watch", "ann", "nobody", "--after", "0", "--count", "1", "--connect", address)
    done = subprocess.run(watch, capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert done.stderr == "bezant: there is no account 'nobody'; what happens to it is told once it is open\n"


def test_of_many_accounts_that_there_are_not_some_are_named(address: str) -> None:
    names = [f"no:{number}" for number in range(7000)]
    words = ("watch", "ann", *names, "--currency", "EUR", "--after", "0", "--count", "1", "--connect", address)
    done = subprocess.run(bezant(*words), capture_output=True, text=True, timeout=WAIT_S, check=True)
    told = done.stderr.splitlines()
    assert told[0] == "bezant: there is no account 'no:0' in EUR; what happens to it is told once it is open"
    assert told[10:] == ["bezant: nor are there 6,990 others of those"]


def test_a_name_goes_on_where_it_was(address: str) -> None:
    watch = ("watch", "--after", "0", "--remember", "mail", "--count", "1", "--connect", address)
    assert " 1" in run(*watch)[0][-3:]
    assert run("watch", "--remember", "mail", "--count", "1", "--connect", address)[0].endswith("  2")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--after", "soon"], "a position is a whole number"),
        (["--kind", "gift"], "there is no kind 'gift'"),
        (["--currency", "XYZ"], "not registered"),
        (["--after", str(2**60)], "another shard"),
    ],
)
def test_what_cannot_be_watched(address: str, words: list[str], told: str, capfd) -> None:
    try:
        assert main(["watch", *words, "--connect", address]) != 0
    except SystemExit as ended:
        assert ended.code == 2
    assert told in capfd.readouterr().err


def test_a_reader_by_itself(start_node: Callable[..., object], tmp_path: Path) -> None:
    """On the folder of a node that has stopped."""
    import asyncio

    from bezant.net.client.link import welcome_at
    from bezant.net.client.members import ask_node
    from bezant.protocol.frames import Operation
    from bezant.protocol.messages import Subscribe, Subscribed, decode_message, encode_message

    def told(data: Path) -> tuple[str, Subscribed]:
        with subprocess.Popen(bezant("reader", str(data)), stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                address = process.stdout.readline().removeprefix("listening on ").strip()

                async def ask() -> tuple[str, Subscribed]:
                    async with asyncio.timeout(WAIT_S):
                        while True:
                            try:
                                welcome = await welcome_at(address, 10.0)
                                break
                            except Exception:
                                await asyncio.sleep(0.1)
                    body = await ask_node(address, Operation.SUBSCRIBE, encode_message(Subscribe(after=0)), 10.0)
                    return welcome.log_id, decode_message(body, Subscribed)

                return asyncio.run(ask())
            finally:
                process.send_signal(signal.SIGTERM)
                assert process.wait(WAIT_S) == 0

    with start_node(reader=True) as node:  # type: ignore[attr-defined]
        make_books(node.address)
        assert node.stop() == 0
        assert told(node.data)[1] == Subscribed(0, 3)


def test_a_reader_of_nothing_says_so(tmp_path: Path, capfd) -> None:
    assert main(["reader", str(tmp_path / "nowhere")]) == 1
    assert "there is no ledger" in capfd.readouterr().err
