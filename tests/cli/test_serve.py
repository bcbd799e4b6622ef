"""`bezant serve` hands the node what the command line says, and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bezant.cli.main import main
from bezant.engine.replica import IDS_MEMORY_BYTES_MIN, ReplicaSettings
from bezant.net.access.settings import OPEN, NodeSecurity
from bezant.net.server import serve as serve_module


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `serve` was called with, in place of serving."""
    calls: dict[str, Any] = {}

    def fake(
        data: Path,
        listen: str,
        *,
        say: Callable[[str], None],
        echo: str | None = None,
        settings: ReplicaSettings | None = None,
        repairs: bool = False,
        reader: bool = True,
        reader_listen: str | None = None,
        placement: list[str] | None = None,
        security: NodeSecurity = OPEN,
        metrics: str | None = None,
        reader_metrics: str | None = None,
    ) -> int:
        calls.update(data=data, listen=listen, echo=echo, settings=settings, repairs=repairs)
        calls.update(reader=reader, reader_listen=reader_listen, placement=placement, security=security)
        calls.update(metrics=metrics, reader_metrics=reader_metrics)
        return 7

    monkeypatch.setattr(serve_module, "serve", fake)
    return calls


def test_defaults_are_the_engine_s(served: dict[str, Any]) -> None:
    assert main(["serve", "--data", "books"]) == 7
    assert served == {
        "data": Path("books"),
        "listen": None,
        "echo": None,
        "settings": ReplicaSettings(),
        "repairs": False,
        "reader": True,
        "reader_listen": None,
        "placement": None,
        "security": OPEN,
        "metrics": None,
        "reader_metrics": None,
    }


def test_everything_that_can_be_said_arrives(served: dict[str, Any]) -> None:
    line = "serve --data d --listen [::1]:0 --echo 127.0.0.1:0 --accounts-max 10 --free-space-floor-mib 3"
    line += " --segment-size-mib 2 --holds-max 2000 --ids-memory-mib 65 --checkpoint-ids 7 --checkpoint-entries 8"
    line += " --repair-from-group --reader-listen 127.0.0.1:0 --placement 127.0.0.1:1,127.0.0.1:2"
    line += " --tls-cert c --tls-key k --tls-ca a --cluster-token-file t --insecure-listen"
    line += " --metrics h:1 --reader-metrics h:2"
    assert main(line.split()) == 7
    assert served["security"] == NodeSecurity("c", "k", "a", "t", insecure_listen=True)
    assert (served["listen"], served["echo"], served["repairs"]) == ("[::1]:0", "127.0.0.1:0", True)
    assert (served["reader"], served["reader_listen"]) == (True, "127.0.0.1:0")
    assert (served["metrics"], served["reader_metrics"]) == ("h:1", "h:2")
    assert served["placement"] == ["127.0.0.1:1", "127.0.0.1:2"]
    assert served["settings"] == ReplicaSettings(
        accounts_max=10,
        holds_max=2000,
        free_space_floor=3 << 20,
        segment_size=2 << 20,
        ids_memory_bytes=65 << 20,
        checkpoint_ids=7,
        checkpoint_entries=8,
    )


def test_a_node_may_be_told_to_have_no_reader(served: dict[str, Any], capsys) -> None:
    assert main(["serve", "--data", "d", "--no-reader"]) == 7
    assert served["reader"] is False
    with pytest.raises(SystemExit):
        main(["serve", "--data", "d", "--no-reader", "--reader-listen", "127.0.0.1:0"])
    assert "--reader-listen is where a reader takes clients, and there is to be none" in capsys.readouterr().err


def test_settings_that_cannot_be_are_a_wrong_command_line(served: dict[str, Any], capsys) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--data", "d", "--ids-memory-mib", "63"])
    assert "--ids-memory-mib: it is a whole number from 64 on, not '63'" in capsys.readouterr().err
    assert IDS_MEMORY_BYTES_MIN == 64 << 20
    assert served == {}


@pytest.mark.parametrize(
    ("option", "field", "unit"),
    [
        ("4,194,304", "accounts_max", 1),
        ("256", "free_space_floor", 1 << 20),
        ("64", "segment_size", 1 << 20),
        ("4,194,304", "holds_max", 1),
        ("1,024", "ids_memory_bytes", 1 << 20),
        ("3,145,728", "checkpoint_ids", 1),
        ("100,000", "checkpoint_entries", 1),
    ],
)
def test_help_names_the_defaults_that_are_true(option: str, field: str, unit: int, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    assert f"(default: {option})" in " ".join(capsys.readouterr().out.split())
    assert getattr(ReplicaSettings(), field) == int(option.replace(",", "")) * unit
