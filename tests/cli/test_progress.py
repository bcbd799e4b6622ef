"""Progress is a bar for a person and a rare line for a file; either way the work is not disturbed."""

import io

import pytest

from bezant.cli import progress as progress_module
from bezant.cli.output import write_table
from bezant.cli.progress import LINE_EVERY_S, progress


class Terminal(io.StringIO):
    """A stream that says it is watched."""

    def isatty(self) -> bool:
        return True


def test_a_file_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    now_s = 100.0
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now_s)
    with progress("importing", total=3000, unit="rows") as bar:
        bar.advance(1000)
        now_s += LINE_EVERY_S
        bar.advance(500)
        bar.advance(500)
        now_s += LINE_EVERY_S
        bar.update(2500, 5000)
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["importing: 1,500 of 3,000 rows", "importing: 2,500 of 5,000 rows"]
    assert captured.out == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with progress("importing", total=10, unit="rows", stream=stream) as bar:
        bar.advance(4)
        bar.update(10, 10)
    assert "importing" in stream.getvalue()
    assert "10 of 10 rows" in stream.getvalue()


def test_a_table_is_as_wide_as_its_cells(capsys) -> None:
    write_table(("name", "balance"), [("a", "1.00"), ("long-name", "-12,000.00")], right=frozenset({"balance"}))
    assert capsys.readouterr().out.splitlines() == [
        "name          balance",
        "a                1.00",
        "long-name  -12,000.00",
    ]
