"""Claim: every command that talks to a node takes a token and TLS; tokens are made, listed and revoked from the command
line; what was administered can be printed; and a token's text is told once, to whoever made it."""

import argparse
import importlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from bezant.cli.access import MEASURES, TOKEN_VARIABLE, add_access_arguments, use_access
from bezant.cli.main import COMMANDS, main
from bezant.cli.serve import add_parser as add_serve_parser
from bezant.engine.tokens import audit
from bezant.net.access.credentials import NO_CREDENTIALS, own_credentials, read_token_file, use_credentials
from bezant.protocol.access import token_id_of
from bezant.protocol.errors import UsageError

TOKEN = "bezant_abcdef012345_" + "s" * 43
ACCESS = {"--token-file", "--tls", "--tls-ca", "--tls-cert", "--tls-key", "--insecure-connect"}


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a command has this process show, it shows no longer afterwards."""
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    yield
    use_credentials(NO_CREDENTIALS)


def parsers_of(name: str) -> list[argparse.ArgumentParser]:
    """The parser of a command, as `main` makes it, and those of its actions."""
    subparsers = argparse.ArgumentParser().add_subparsers()
    importlib.import_module(f"bezant.cli.{COMMANDS[name].module}").add_parser(subparsers)
    add_access_arguments(subparsers.choices[name], has_tls=name != MEASURES)
    found, todo = [], [subparsers.choices[name]]
    while todo:
        parser = todo.pop()
        found.append(parser)
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                todo += dict.fromkeys(action.choices.values())
    return found


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_who_connects_takes_a_token_and_tls(name: str) -> None:
    for parser in parsers_of(name):
        options = options_of(parser)
        if "--connect" in options:
            assert options >= (ACCESS if name != MEASURES else {"--token-file", "--insecure-connect"}), parser.prog


def test_these_commands_connect() -> None:
    connecting = {name for name in COMMANDS if any("--connect" in options_of(parser) for parser in parsers_of(name))}
    assert connecting >= {"transfer", "balance", "watch", "members", "shards", "transactions", "tokens", "import"}


def test_what_is_shown_is_what_was_said(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    parser = argparse.ArgumentParser()
    parser.add_argument("--connect")
    add_access_arguments(parser)
    use_access(parser.parse_args([]), {})
    assert own_credentials() == NO_CREDENTIALS
    use_access(parser.parse_args([]), {TOKEN_VARIABLE: f"{TOKEN}\n"})
    assert own_credentials() == (TOKEN, None, False)
    use_access(parser.parse_args(["--token-file", str(file), "--tls"]), {TOKEN_VARIABLE: "another"})
    assert own_credentials().token == TOKEN
    assert own_credentials().tls is not None
    for words, variable in ((["--token-file", str(tmp_path)], ""), ([], "nonsense"), (["--tls-ca", str(file)], "")):
        with pytest.raises(UsageError) as told:
            use_access(parser.parse_args(words), {TOKEN_VARIABLE: variable})
        assert "sss" not in str(told.value)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["balance", "a", "EUR", "--connect", "192.0.2.1:7420", "--timeout", "1"], 1, "in clear to 192.0.2.1"),
        (["members", "status", "--connect", "192.0.2.1:7420"], 1, "in clear to 192.0.2.1"),
        (["bench", "transfers", "--transfers", "1", "--connect", "192.0.2.1:7420"], 1, "in clear to 192.0.2.1"),
    ],
)
def test_no_token_is_shown_in_clear_to_another_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], code: int, told: str
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert main(words) == code
    error = capsys.readouterr().err
    assert told in error
    assert "--insecure-connect" in error
    assert TOKEN not in error


def test_a_command_that_talks_to_nobody_shows_nothing() -> None:
    use_access(argparse.Namespace(), {TOKEN_VARIABLE: "nonsense"})
    assert own_credentials() == NO_CREDENTIALS


def test_serve_is_told_of_its_own_security_and_shows_no_other() -> None:
    subparsers = argparse.ArgumentParser().add_subparsers()
    add_serve_parser(subparsers)
    add_access_arguments(subparsers.choices["serve"])
    options = options_of(subparsers.choices["serve"])
    assert {"--tls-cert", "--tls-key", "--tls-ca", "--cluster-token-file", "--insecure-listen"} <= options
    assert "--token-file" not in options


def test_a_token_for_a_cluster_is_in_a_file_of_its_owner_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cluster"
    assert main(["tokens", "generate", "--out", str(file)]) == 0
    assert capsys.readouterr().out == ""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first = read_token_file(file)
    assert main(["tokens", "generate", "--out", str(file)]) != 0  # what is there is not written over
    assert read_token_file(file) == first
    assert main(["tokens", "generate"]) == 0
    other = capsys.readouterr().out.strip()
    assert token_id_of(other) != token_id_of(first)


def test_who_lets_everybody_read_a_token_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o640)
    read_token_file(file)
    assert caplog.text == ""
    file.chmod(0o644)
    read_token_file(file)
    read_token_file(file)
    assert caplog.text.count(f"{file} holds a token, and everybody on this machine can read it") == 1
    assert TOKEN not in caplog.text


def test_what_is_printed_of_an_act_moves_no_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of one that an earlier version wrote."""
    line = audit.AuditLine(7, 1, 9, "abcdef012345", "CHANGE_MEMBERS", "remove\x1b[1A\x1b[2K node 3", "\u202enot")
    monkeypatch.setattr(audit, "read_acts", lambda data, after: iter([line]))
    monkeypatch.setattr("bezant.cli.audit.check_data_folder", lambda data: None)
    assert main(["audit", "--data", str(tmp_path)]) == 0
    (told,) = capsys.readouterr().out.splitlines()
    assert told.isprintable()
    assert "remove\\x1b[1A\\x1b[2K node 3 - not done: \\u202enot" in told


def test_tokens_from_the_first_to_the_last(
    start_node, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: str, status: int = 0) -> str:
        assert main([*words, "--connect", node.address]) == status
        printed = capsys.readouterr()
        said.append(printed.err)
        return printed.out if status == 0 else printed.err

    said: list[str] = []
    admin, shop = tmp_path / "admin", tmp_path / "shop"
    with start_node(reader=False) as node:
        assert "first token has the scope admin" in run("tokens", "create", "--scopes", "read", status=1)
        run("tokens", "create", "--scopes", "admin,transfer,read", "--out", str(admin), "--note", "the operator")
        assert "without a token" in run("balance", "world", "EUR", status=1)
        as_admin = ("--token-file", str(admin))
        run("open", "world", "EUR", "--limit", "unlimited", *as_admin)
        run("open", "shop:1", "EUR", *as_admin)
        run("transfer", "world", "shop:1", "5.00", "EUR", *as_admin)
        run("tokens", "create", "--scopes", "transfer", "--prefix", "shop:", "--out", str(shop), *as_admin)
        monkeypatch.setenv(TOKEN_VARIABLE, read_token_file(shop))
        run("transfer", "shop:1", "world", "1.00", "EUR")
        assert "token may not" in run("transfer", "world", "shop:1", "1.00", "EUR", status=1)
        assert "TOKENS takes the scope admin" in run("tokens", "list", status=1)
        monkeypatch.delenv(TOKEN_VARIABLE)
        shop_id, admin_id = token_id_of(read_token_file(shop)), token_id_of(read_token_file(admin))
        run("tokens", "revoke", shop_id, *as_admin)
        assert "last token with the scope admin" in run("tokens", "revoke", admin_id, *as_admin, status=1)
        known = json.loads(run("tokens", "list", "--json", *as_admin))["tokens"]
        assert [(token["token_id"], token["revoked_ns"] > 0) for token in known] == [(admin_id, False), (shop_id, True)]
        assert "the operator" in run("tokens", "list", *as_admin)
        assert main(["audit", "--data", str(node.data)]) == 0
        told = capsys.readouterr().out
        assert f"{admin_id}  CHANGE_TOKENS: create {shop_id} (transfer, limited to shop:*)" in told
        assert f"{admin_id}  CHANGE_TOKENS: revoke {shop_id}" in told
        assert "not done: this is the last token with the scope admin" in told
        assert "COMMANDS: 1 OPEN: " in told
        assert main(["audit", "--data", str(node.data), "--json", "--by", admin_id]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert {line["token_id"] for line in lines} == {admin_id}
        assert main(["audit", "--data", str(node.data), "--after", str(lines[-1]["index"])]) == 0
        assert capsys.readouterr().out == ""
        assert node.stop() == 0
    for file in (admin, shop):
        secret = read_token_file(file).split("_", 2)[2]
        assert secret not in told
        assert all(secret not in line for line in said)
