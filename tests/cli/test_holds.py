"""Holds, states of accounts and settling an id, from the command line against a real node and its folder."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bezant.cli.hold import hold_timeout_ms
from bezant.cli.main import main

Run = Callable[..., tuple[int, str, str]]
HOLD = "0c" * 16


@pytest.fixture
def bezant(node, capsys) -> Run:
    """Runs one command line on the node: (exit status, stdout, stderr)."""

    def run(line: str, *more: str) -> tuple[int, str, str]:
        status = main([*line.split(), *more, "--connect", node.address])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def ann(bezant, request: pytest.FixtureRequest) -> str:
    """An account of the test's own with 100.00 EUR, beside the outside world and a shop."""
    name = f"ann:{abs(hash(request.node.name)) % 10**9}"
    for line in ("open world EUR --limit unlimited", "open shop EUR", f"open {name} EUR"):
        bezant(line)
    assert bezant(f"transfer world {name} 100.00 EUR")[0] == 0
    return name


def balance(bezant: Run, name: str) -> str:
    status, out, _ = bezant(f"balance {name} EUR")
    assert status == 0
    return out.strip()


def test_hold_capture_in_parts_and_release(bezant, ann: str) -> None:
    status, out, _ = bezant(f"hold {ann} shop 30.00 EUR --expires-in 3600")
    held, identifier = out.splitlines()
    assert (status, held) == (0, f"30.00 EUR of {ann} held for shop")
    hold = identifier.removeprefix("id ")
    assert balance(bezant, ann) == "100.00 EUR  held 30.00  limit 0.00"

    status, out, _ = bezant(f"capture {hold} {ann} shop EUR --amount 10.00 --keep-open")
    assert (status, out.splitlines()[0]) == (0, f"10.00 EUR from {ann} to shop")
    assert balance(bezant, ann) == "90.00 EUR  held 20.00  limit 0.00"

    status, out, _ = bezant(f"release {hold} {ann} EUR")
    assert (status, out.splitlines()[0]) == (0, f"20.00 EUR of {ann} free again")
    assert balance(bezant, ann) == "90.00 EUR  held 0.00  limit 0.00"

    status, out, err = bezant(f"capture {hold} {ann} shop EUR")
    assert (status, out) == (1, "")
    assert "HOLD_RELEASED" in err


def test_all_that_is_held_is_captured_unless_an_amount_is_given(bezant, ann: str) -> None:
    for amount, captured in ((None, "30.00"), ("10.00", "10.00")):
        _, out, _ = bezant(f"hold {ann} shop 30.00 EUR --json")
        hold = json.loads(out)["id"]
        part = ("--amount", amount) if amount is not None else ()
        _, out, _ = bezant(f"capture {hold} {ann} shop EUR --json", *part)
        assert json.loads(out)["amount"] == captured
    assert balance(bezant, ann) == "60.00 EUR  held 0.00  limit 0.00"


def test_a_line_with_an_id_holds_once(bezant, ann: str) -> None:
    line = f"hold {ann} shop 30.00 EUR --expires-in 60.5 --id {HOLD}"
    assert bezant(line)[1].splitlines() == [f"30.00 EUR of {ann} held for shop", f"id {HOLD}"]
    status, out, _ = bezant(line)
    assert (status, out.splitlines()[0]) == (
        0,
        f"30.00 EUR of {ann} held for shop (done before: nothing was changed now)",
    )
    status, out, _ = bezant(line, "--json")
    result = json.loads(out)
    assert (result["outcome"], result["repeated"], result["debit_held"]) == ("committed", True, "30.00")
    assert balance(bezant, ann) == "100.00 EUR  held 30.00  limit 0.00"
    assert "timeout_ms" in bezant(f"hold {ann} shop 30.00 EUR --expires-in 61 --id {HOLD}")[2]


def test_a_hold_expires(bezant, ann: str) -> None:
    _, out, _ = bezant(f"hold {ann} shop 30.00 EUR --expires-in 0.01 --json")
    hold = json.loads(out)["id"]
    stop_s = time.monotonic() + 60
    while balance(bezant, ann) != "100.00 EUR  held 0.00  limit 0.00":
        assert time.monotonic() < stop_s
    status, _, err = bezant(f"capture {hold} {ann} shop EUR")
    assert status == 1
    assert "HOLD_EXPIRED: the hold has expired; make another: bezant hold" in err


def test_freeze_unfreeze_and_close(bezant, ann: str) -> None:
    status, out, _ = bezant(f"freeze {ann} EUR")
    assert (status, out.splitlines()[0]) == (0, f"{ann} is frozen in EUR")
    assert balance(bezant, ann) == "100.00 EUR  held 0.00  limit 0.00  frozen"
    status, _, err = bezant(f"transfer {ann} shop 1.00 EUR")
    assert status == 1
    assert "DEBIT_ACCOUNT_FROZEN: the debit account is frozen; let it take part again: bezant unfreeze" in err
    assert bezant(f"unfreeze {ann} EUR")[1].splitlines()[0] == f"{ann} is unfrozen in EUR"
    status, _, err = bezant(f"close {ann} EUR")
    assert status == 1
    assert "ACCOUNT_NOT_EMPTY" in err
    assert bezant(f"transfer {ann} shop 500.00 EUR --at-most")[1].splitlines()[0] == f"100.00 EUR from {ann} to shop"
    assert bezant(f"close {ann} EUR")[1].splitlines()[0] == f"{ann} is closed in EUR"
    assert balance(bezant, ann) == "0.00 EUR  held 0.00  limit 0.00  closed"
    _, out, _ = bezant(f"balance {ann} EUR --json")
    assert (json.loads(out)["frozen"], json.loads(out)["closed"]) == (False, True)


def test_at_most_what_is_there(bezant, ann: str) -> None:
    line = f"transfer {ann} shop 120 EUR --at-most --id {'0d' * 16}"
    assert bezant(line)[1].splitlines()[0] == f"100.00 EUR from {ann} to shop"
    assert bezant(line)[1].splitlines()[0].startswith(f"100.00 EUR from {ann} to shop (done before")
    status, _, err = bezant(f"transfer {ann} shop 0.01 EUR --at-most")
    assert status == 1
    assert "NOTHING_AVAILABLE" in err
    # The same id is another command without the option.
    assert "the field is kind" in bezant(line.replace(" --at-most", ""))[2]


def test_resolve_tells_what_became_of_a_command(bezant, ann: str) -> None:
    done, refused, never = "1a" * 16, "1b" * 16, "1c" * 16
    assert bezant(f"transfer {ann} shop 10.00 EUR --id {done}")[0] == 0
    assert bezant(f"transfer {ann} shop 999.00 EUR --id {refused}")[0] == 1
    assert bezant(f"resolve {done} {ann} EUR")[:2] == (0, "it was done: 10.00 EUR\n")
    status, out, _ = bezant(f"resolve {refused} {ann} EUR")
    assert (status, out) == (0, "it was refused: INSUFFICIENT_FUNDS: balance less held would fall below the limit\n")
    for _ in range(2):
        assert bezant(f"resolve {never} {ann} EUR")[:2] == (0, "it was not done, and never will be\n")
    status, _, err = bezant(f"transfer {ann} shop 10.00 EUR --id {never}")
    assert status == 1
    assert "ID_FORBIDDEN" in err
    assert "use another id" in err
    status, out, _ = bezant(f"resolve {never} {ann} EUR --json")
    assert (status, json.loads(out)["code"], json.loads(out)["id"]) == (0, "ID_FORBIDDEN", never)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("hold ANN shop 100.01 EUR", "INSUFFICIENT_FUNDS"),
        ("hold ANN shop 0.00 EUR", "AMOUNT_NOT_POSITIVE"),
        ("hold ANN ANN 1.00 EUR", "ACCOUNTS_EQUAL"),
        ("hold ANN shop 1.00 XXX", "'XXX' is not registered"),
        ("hold ANN shop 1.001 EUR", "has 3 decimals; the currency has 2"),
        ("hold ANN shop 1.00 EUR --id 12", "an id is 32 hexadecimal digits"),
        (f"capture {'ab' * 16} ANN shop EUR", "HOLD_UNKNOWN: no hold has the referenced id; a hold is named by the id"),
        (f"capture {'ab' * 16} ANN shop EUR --amount 0.00", "leave the amount out to capture all that is held"),
        (f"capture {'ab' * 16} ANN nobody EUR", "CREDIT_ACCOUNT_UNKNOWN"),
        ("capture 12 ANN shop EUR", "an id is 32 hexadecimal digits"),
        (f"capture {'00' * 16} ANN shop EUR", "REFERENCE_MISSING"),
        (f"release {'ab' * 16} nobody EUR", "DEBIT_ACCOUNT_UNKNOWN"),
        (f"release {'ab' * 16} ANN EUR", "HOLD_UNKNOWN"),
        ("freeze nobody EUR", "DEBIT_ACCOUNT_UNKNOWN"),
        ("close nobody EUR", "DEBIT_ACCOUNT_UNKNOWN"),
        (f"resolve {'ab' * 16} nobody EUR", "there is no account 'nobody' in EUR"),
        ("resolve 12 ANN EUR", "an id is 32 hexadecimal digits"),
        (f"resolve {'00' * 16} ANN EUR", "ID_INVALID"),
    ],
)
def test_bad_input_is_one_clear_line_and_changes_nothing(bezant, ann: str, line: str, told: str) -> None:
    status, out, err = bezant(line.replace("ANN", ann))
    assert (status, out) == (1, "")
    assert err.startswith("bezant: ")
    assert err.count("\n") == 1
    assert told in err
    assert balance(bezant, ann) == "100.00 EUR  held 0.00  limit 0.00"


def test_an_outcome_that_is_not_known_comes_with_the_line_that_settles_it(node, ann: str, bezant, capsys) -> None:
    """Word for word, and on the same ledger: run as it is printed, it does what was asked, once."""
    from bezant.net.client.coalescer import Coalescer
    from bezant.net.client.results import UNKNOWN_ROW

    async def say_nothing(*_: object) -> object:
        return UNKNOWN_ROW

    lines = (
        f"transfer {ann} shop 1.00 EUR --at-most",
        f"hold {ann} shop 1.00 EUR --expires-in 3600.5",
        f"freeze {ann} EUR",
        f"resolve {HOLD} {ann} EUR",
    )
    for line in lines:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Coalescer, "submit", say_nothing)
            status, out, err = bezant(line)
        assert (status, out) == (1, "")
        retry = err.strip().partition(": bezant ")[2]
        assert retry.startswith(line.split(" --")[0])
        assert retry.endswith(f"--connect {node.address}")
        assert main(retry.split()) == 0
        printed = capsys.readouterr().out
        assert "done before" not in printed
        if not line.startswith("resolve"):
            assert main(retry.split()) == 0
            assert "done before" in capsys.readouterr().out
    assert bezant(f"balance {ann} EUR")[1] == "99.00 EUR  held 1.00  limit 0.00  frozen\n"


@pytest.mark.parametrize(
    ("text", "timeout_ms"), [("1", 1000), ("0.001", 1), ("900.5", 900_500), ("3153600000", 3153600000000)]
)
def test_seconds_become_milliseconds_exactly(text: str, timeout_ms: int) -> None:
    assert hold_timeout_ms(text) == timeout_ms


def test_the_folder_of_a_stopped_node(start_node, capsys, tmp_path: Path) -> None:
    """The same commands without a node; what they did verifies."""
    with start_node() as node:
        assert node.stop() == 0
    here = ("--data", str(node.data))
    for line in ("open world EUR --limit unlimited", "open shop EUR", f"hold world shop 5.00 EUR --id {HOLD}"):
        assert main([*line.split(), *here]) == 0
    capsys.readouterr()
    assert main([*f"capture {HOLD} world shop EUR --amount 2.00 --json".split(), *here]) == 0
    captured = json.loads(capsys.readouterr().out)
    assert (captured["debit_balance"], captured["debit_held"], captured["credit_balance"]) == ("-2.00", "0.00", "2.00")
    done = subprocess.run(
        [sys.executable, "-m", "bezant", "verify", *here], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.startswith("verified: 4 events")
