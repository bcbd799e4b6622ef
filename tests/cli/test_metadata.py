"""Claim: the command line sets, shows and erases metadata, and says in words what it cannot."""

import json

import pytest

from bezant.cli.main import main

ACCOUNT = ("--account", "ann", "EUR")
ID = "0c1d0c1d0c1d0c1d0c1d0c1d0c1d0c1e"
CONTENT = {"email": "ann@example.org", "tags": ["a", 1]}
TOO_LARGE = json.dumps({"a": "x" * 1024})


def test_metadata_of_accounts_and_transfers(start_node, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str, status: int = 0) -> str:
        """What is printed, or the line that says why it was not done."""
        capsys.readouterr()
        assert main([*words, "--connect", node.address, "--timeout", "60"]) == status
        captured = capsys.readouterr()
        return (captured.err if status else captured.out).strip()

    with start_node(reader=True) as node:
        run("open", "world", "EUR", "--limit", "unlimited")
        run("open", "ann", "EUR")
        run("transfer", "world", "ann", "1.00", "EUR", "--id", ID)
        assert run("metadata", "set", *ACCOUNT, json.dumps(CONTENT)) == "it is set"
        assert json.loads(run("metadata", "show", *ACCOUNT)) == CONTENT
        assert json.loads(run("metadata", "set", "--transfer", ID, '{"order": 1}', "--json"))["version"] > 0
        assert json.loads(run("metadata", "show", "--transfer", ID)) == {"order": 1}
        assert run("metadata", "erase", *ACCOUNT) == "it is erased"
        assert run("metadata", "erase", *ACCOUNT) == "there was none"
        assert "there is no metadata" in run("metadata", "show", *ACCOUNT, status=1)
        for content, why, status in (("[1]", "JSON object", 1), ("{", "JSON object", 1), (TOO_LARGE, "1 to 1024", 2)):
            assert why in run("metadata", "set", *ACCOUNT, content, status=status)
        assert "no such account" in run("metadata", "set", "--account", "nobody", "EUR", "{}", status=1)
        assert node.stop() == 0
