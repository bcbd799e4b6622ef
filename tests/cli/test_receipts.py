"""Claim: a receipt that a node gives is checked by somebody who has nothing else, and one that was altered is not."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bezant
from bezant.cli.main import main
from bezant.engine.proofs.keys import KEY_NAME
from bezant.net.client import sharding_readers

from .conftest import Node

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(word) for word in words])
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def books(node: Node) -> Iterator[tuple[Node, list[bezant.Result]]]:
    """Transfers, the last one refused."""
    with bezant.connect_blocking(node.address) as wallet:
        if wallet.account("world", "EUR") is None:
            wallet.open_account("world", "EUR", limit=bezant.UNLIMITED)
            wallet.open_account("ann", "EUR")
        results = [wallet.transfer("world", "ann", "1.00", "EUR") for _ in range(5)]
        results.append(wallet.transfer("ann", "world", "100000.00", "EUR"))
        yield node, results


@pytest.mark.parametrize("command", ["receipt", "reconcile"])
def test_right_behind_the_start_of_a_node_its_reader_is_waited_for(
    command: str, books: tuple[Node, list[bezant.Result]], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first start compiles for longer than a question waits: the line of the README that asks first failed."""
    node, results = books
    silent = ["127.0.0.1:1", ""]

    async def find(*_: object) -> str:
        return silent.pop(0)

    monkeypatch.setattr(sharding_readers, "find_silent_reader", find)
    statement = tmp_path / "statement.csv"
    statement.write_text("transaction_id,date,from_account,to_account,amount,currency\n")
    words = {"receipt": (results[2].id.hex(), "--out", tmp_path / "receipt"), "reconcile": (statement,)}[command]
    _, _, err = run(command, *words, "--connect", node.address, "--timeout", "60")
    assert "waiting for the reader at 127.0.0.1:1" in err
    assert silent == []


def test_a_receipt_of_a_running_node(books: tuple[Node, list[bezant.Result]], run: Run, tmp_path: Path) -> None:
    node, results = books
    file, key_file = tmp_path / "receipt", tmp_path / "key"
    status, out, _ = run(
        "receipt", results[2].id.hex(), "--out", file, "--connect", node.address, "--timeout", "60", "--json"
    )
    assert status == 0
    told = json.loads(out)
    assert (told["id"], told["position"], told["result"]) == (results[2].id.hex(), results[2].position, "COMMITTED")
    key_file.write_text(told["key"] + "\n")
    status, out, err = run("check-receipt", file, "--key", key_file, "--log", told["log_id"])
    assert status == 0
    assert "the receipt holds" in out
    assert err == ""
    status, out, err = run("check-receipt", file)
    assert "whose key that is was not checked" in err

    older, file = file, tmp_path / "later"
    words = (
        "receipt",
        "--position",
        results[5].position,
        "--out",
        file,
        "--extends",
        older,
        "--connect",
        node.address,
        "--timeout",
        "60",
    )
    status, out, _ = run(*words)
    assert status == 0
    assert "refused: INSUFFICIENT_FUNDS" in out
    assert run("check-receipt", file, "--extends", older, "--key", key_file)[0] == 0


def test_the_folder_of_a_node_gives_the_same_receipts_running_or_not(
    start_node: Callable[..., Node], run: Run, tmp_path: Path
) -> None:
    with start_node(reader=True) as node:
        with bezant.connect_blocking(node.address) as wallet:
            wallet.open_account("world", "EUR", limit=bezant.UNLIMITED)
            wallet.open_account("ann", "EUR")
            sent = [wallet.transfer("world", "ann", "1.00", "EUR") for _ in range(3)]
        first = tmp_path / "first"
        by_node = ("--out", first, "--connect", node.address, "--timeout", "60")
        assert run("receipt", sent[0].id.hex(), *by_node)[0] == 0
        from_running = tmp_path / "running"
        status, _, err = run(
            "receipt", sent[1].id.hex(), "--out", from_running, "--data", node.data, "--extends", first
        )
        assert (status, err) == (0, "")
        assert node.stop() == 0
    from_rest = tmp_path / "rest"
    for which in ((sent[1].id.hex(),), ("--position", sent[1].position)):
        assert run("receipt", *which, "--out", from_rest, "--data", node.data, "--extends", first)[0] == 0
        assert run("check-receipt", from_rest, "--extends", first)[0] == 0
    keys = {bezant.check_receipt(path.read_bytes()).head.key for path in (first, from_running, from_rest)}
    assert len(keys) == 1
    assert (node.data / KEY_NAME).stat().st_mode & 0o777 == 0o600


def test_what_is_not_there_is_told(books: tuple[Node, list[bezant.Result]], run: Run, tmp_path: Path) -> None:
    node, results = books
    out = tmp_path / "receipt"
    for which, words in (
        ((("ab" * 16),), "no event has the id"),
        (("--position", "0"), "is none of this log"),
        (("--position", str(1 << 55)), "is none of this log"),
    ):
        status, _, err = run("receipt", *which, "--out", out, "--connect", node.address, "--timeout", "60")
        assert status == 1
        assert words in err
        assert not out.exists()
    assert run("receipt", "xyz", "--out", out, "--connect", node.address, "--timeout", "60")[0] == 1
    status, _, err = run(
        "receipt", results[0].id.hex(), "--out", tmp_path / "no" / "where", "--connect", node.address, "--timeout", "60"
    )
    assert status == 1
    assert "cannot be written" in err


def test_receipts_that_do_not_hold_are_refused(
    books: tuple[Node, list[bezant.Result]], run: Run, tmp_path: Path
) -> None:
    node, results = books
    file = tmp_path / "receipt"
    assert run("receipt", results[0].id.hex(), "--out", file, "--connect", node.address, "--timeout", "60")[0] == 0
    data = bytearray(file.read_bytes())
    data[200] ^= 1
    file.write_bytes(data)
    status, _, err = run("check-receipt", file)
    assert status == 1
    assert "the receipt: its event is not in the history" in err
    for content, words in ((b"", "this is not a receipt"), (b"x" * 9000, "more than a receipt has")):
        file.write_bytes(content)
        status, _, err = run("check-receipt", file)
        assert status == 1
        assert words in err
    assert "No such file" in run("check-receipt", tmp_path / "missing")[2]
    key = tmp_path / "key"
    key.write_text("abc")
    assert "64 hexadecimal digits" in run("check-receipt", file, "--key", key)[2]


def test_checking_loads_no_engine(tmp_path: Path) -> None:
    file = tmp_path / "receipt"
    file.write_bytes(b"x" * 500)
    program = (
        "import sys\nfrom bezant.cli.main import main\n"
        f"assert main(['check-receipt', {str(file)!r}]) == 1\n"
        "print(sorted({'numba', 'llvmlite', 'rocksdict', 'bezant.engine', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
