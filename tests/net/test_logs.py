"""Claim: a record is one line, says when, where and what, and never has a secret in it, whichever format is written."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bezant.cli.node_process import WRITE_SIDE_COMMAND, NodeProcess
from bezant.net.logs import FORMAT_VARIABLE, RECORD_SIZE_MAX, about, add_fields, begin_logs, struck_out, writes_json
from bezant.protocol.access import token_text
from bezant.protocol.errors import UsageError

from .server.process import SMALL

SECRET = "s3cret" + "Ab-_" * 9 + "x"
TOKEN = token_text("abcdefghij01", SECRET)
KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\nabc=\n-----END EC PRIVATE KEY-----"
_log = logging.getLogger("bezant")


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leaves logging as other tests expect it."""
    monkeypatch.setenv(FORMAT_VARIABLE, "text")
    root, levels = logging.getLogger(), (logging.getLogger().level, _log.level)
    handlers = list(root.handlers)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    _log.setLevel(levels[1])


def records(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_record_says_when_where_and_what(capsys: pytest.CaptureFixture[str]) -> None:
    begin_logs("json", "node", shard=3)
    add_fields(node=2)
    _log.warning("bezant: the reader %s\nand more", "ended", extra=about("reader_ended", status=1, level="no"))
    _log.info("bezant: well")
    logging.getLogger("elsewhere").info("nobody wants to know")
    first, second = records(capsys)
    time = first.pop("time")
    assert (len(time), time[-1], time[10]) == (27, "Z", "T")
    assert first == {
        "level": "warning",
        "process": "node",
        "shard": 3,
        "node": 2,
        "event": "reader_ended",
        "message": "the reader ended\nand more",
        "status": 1,
    }
    assert second["event"] == "test_logs.test_a_record_says_when_where_and_what"
    assert writes_json()


def test_text_is_what_people_read_and_warnings_alone(capsys: pytest.CaptureFixture[str]) -> None:
    begin_logs("text", "node", shard=3)
    _log.info("bezant: well")
    _log.warning("bezant: %d is odd", 3, extra=about("odd", number=3))
    assert capsys.readouterr().err == "bezant: 3 is odd\n"
    assert not writes_json()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nothing_that_somebody_asks_for_looks_like_a_line_of_ours(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    begin_logs(log_format, "gateway")
    _log.warning("bezant: %s failed", "/v1/\nbezant: all is well\x1b[2J\x9b")
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "\x1b" not in told


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_secrets_are_struck_out_wherever_they_are(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    begin_logs(log_format, "node")
    try:
        raise ValueError(f"token {TOKEN} refused")
    except ValueError:
        _log.exception("bezant: %s with %s", KEY, f"Authorization: Bearer {SECRET}", extra=about("x", token=TOKEN))
    _log.error("bezant: %s", {"nested": [TOKEN]}, extra=about("y", nested={"token": TOKEN}, more=[TOKEN]))
    told = capsys.readouterr().err
    assert SECRET not in told and "MHcCAQEE" not in told
    assert "bezant_abcdefghij01_***" in told
    assert "ValueError" in told
    if log_format == "json":
        assert [json.loads(line)["event"] for line in told.splitlines()] == ["x", "y"]


def test_what_is_too_long_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    begin_logs("json", "node")
    _log.warning("bezant: %s", "a" * 10 * RECORD_SIZE_MAX)
    (record,) = records(capsys)
    assert len(record["message"]) == RECORD_SIZE_MAX + 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nothing secret", "nothing secret"),
        ("bezant_not_a_token", "bezant_not_a_token"),
        (f"a {TOKEN}, b", "a bezant_abcdefghij01_***, b"),
        ("authorization: bearer abc.def", "authorization: bearer ***"),
        ("signed with whsec_MfKQ9r8G+/w==.", "signed with whsec_***."),
        ("-----BEGIN PRIVATE KEY-----\nabc", "***"),
    ],
)
def test_what_is_struck_out(text: str, told: str) -> None:
    assert struck_out(text) == told


def test_children_write_as_their_parents_do(capsys: pytest.CaptureFixture[str]) -> None:
    begin_logs("json", "cluster")
    assert os.environ[FORMAT_VARIABLE] == "json"
    begin_logs("text", "reader")
    _log.warning("bezant: hello")
    (record,) = records(capsys)
    assert record["process"] == "reader"


def test_a_format_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORMAT_VARIABLE, "xml")
    with pytest.raises(UsageError, match="text or json"):
        begin_logs("text", "node")


def test_a_node_writes_nothing_but_objects(tmp_path: Path) -> None:
    arguments = (*SMALL, "--log-format", "json")
    log = tmp_path / "log"
    with NodeProcess(tmp_path / "data", log_path=log, arguments=arguments, command=WRITE_SIDE_COMMAND):
        pass
    lines = [line for line in log.read_text().splitlines() if not line.startswith("listening on ")]
    told = {record["event"]: record for record in map(json.loads, lines)}
    assert told["listening"]["address"].startswith("127.0.0.1:")
    assert (told["listening"]["shard"], told["listening"]["node"]) == (0, 1)


def test_why_a_process_ends_is_a_record_too(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no folder")
    command = [sys.executable, "-m", "bezant", "serve", "--data", str(tmp_path / "data"), "--log-format", "json"]
    done = subprocess.run(
        [*command, "--listen", "127.0.0.1:0"], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 1
    record = json.loads(done.stderr.splitlines()[-1])
    assert (record["level"], record["event"], record["process"]) == ("error", "failed", "node")
