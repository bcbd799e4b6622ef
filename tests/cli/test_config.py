"""A file of settings is read as written, mistakes are told with their line, and options go before it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bezant.cli.config_file import FILE_BYTES_MAX, read_config
from bezant.cli.main import main
from bezant.cli.setting import settings_of
from bezant.cli.settings import DEADLINES_S, MIB, TABLES, Gateway, Serve, is_loopback
from bezant.engine.replica import ReplicaSettings
from bezant.net.gateway import settings as gateway_settings
from bezant.net.server import serve as serve_module

GOOD = """
[serve]
data = "books"
listen = "127.0.0.1:0"
accounts_max = 10
free_space_floor_mib = 3
reader = false
tls_cert = "/etc/c.pem"
tls_key = "keys/k.pem"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "bezant.toml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `serve` was called with, in place of serving."""
    calls: dict[str, Any] = {}

    def fake(data: Path, listen: str | None, **given: Any) -> int:
        calls.update(data=data, listen=listen, **given)
        return 0

    monkeypatch.setattr(serve_module, "serve", fake)
    return calls


def problems_of(file: Path, text: str) -> list[str]:
    file.write_text(f"{text}\n")
    return [problem.told(file).removeprefix(f"{file}") for problem in read_config(file).problems]


def test_what_a_file_says_arrives_and_paths_are_as_seen_from_it(served: dict[str, Any], file: Path) -> None:
    assert main(["serve", "--config", str(file)]) == 0
    assert served["data"] == file.parent / "books"
    assert served["listen"] == "127.0.0.1:0"
    assert served["reader"] is False
    assert served["settings"] == ReplicaSettings(accounts_max=10, free_space_floor=3 * MIB)
    assert served["security"].tls_certificate == "/etc/c.pem"
    assert served["security"].tls_key == str(file.parent / "keys/k.pem")


def test_options_go_before_the_file(served: dict[str, Any], file: Path) -> None:
    assert main(["serve", "--config", str(file), "--data", "other", "--accounts-max", "11"]) == 0
    assert served["data"] == Path("other")
    assert served["settings"].accounts_max == 11
    assert served["settings"].free_space_floor == 3 * MIB


def test_options_may_complete_a_file_and_may_contradict_it(
    served: dict[str, Any], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text('[serve]\ntls_cert = "c"\n')
    assert main(["serve", "--config", str(file), "--data", "d", "--tls-key", "k"]) == 0
    for words, told in ((["--data", "d"], "--tls-cert and --tls-key belong together"), (["--tls-key", "k"], "--data")):
        with pytest.raises(SystemExit) as ended:
            main(["serve", "--config", str(file), *words])
        assert ended.value.code == 2
        assert told in capsys.readouterr().err
    file.write_text('[serve]\nreader = false\ndata = "d"\n')
    with pytest.raises(SystemExit):
        main(["serve", "--config", str(file), "--reader-listen", "127.0.0.1:0"])
    assert "--reader-listen is where a reader takes clients, and there is to be none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[serve]\ndta = 'x'", [":2: serve.dta: there is no such setting; did you mean data?"]),
        ("[serve]\nqqqq = 1", [":2: serve.qqqq: there is no such setting"]),
        ("[sevre]\ndata = 'x'", [":1: sevre: there is no such setting; did you mean serve?"]),
        ("data = 'x'", [":1: data: there is no such setting"]),
        ("serve = 1", [":1: serve: it is a table: [serve]"]),
        ("[[serve]]\ndata = 'x'", [": serve: it is a table: [serve]"]),
        ("[serve]\ndata = ", [":2: this is not TOML: Invalid value"]),
        ("[serve]\ndata = 'x'\ndata = 'y'", [":3: this is not TOML: Cannot overwrite a value"]),
        ("[serve]\ndata = 1", [":2: serve.data: it is DIR, not 1"]),
        ("[serve]\ndata = ''", [':2: serve.data: it is DIR, not ""']),
        ("[serve]\n# no\n\naccounts_max = 0", [":4: serve.accounts_max: it is a whole number from 1 on, not 0"]),
        ("[serve]\naccounts_max = '1'", [':2: serve.accounts_max: it is a whole number from 1 on, not "1"']),
        ("[serve]\naccounts_max = true", [":2: serve.accounts_max: it is a whole number from 1 on, not True"]),
        ("[serve]\naccounts_max = 9999999999999", None),
        ("[serve]\naccounts_max = 1.5", None),
        ("[serve]\nids_memory_mib = 63", [":2: serve.ids_memory_mib: it is a whole number from 64 on, not 63"]),
        ("[serve]\nreader = 'no'", [':2: serve.reader: it is true or false, not "no"']),
        ("[serve]\nlisten = 'here'", [":2: serve.listen: an address is written like 127.0.0.1:7420, not 'here'"]),
        ("[serve]\nplacement = 'there'", None),
        ("[gateway]\ntimeout_s = 3", [":2: gateway: timeout_s is one of 0.1, 0.2, 0.5, 1, 2, 5, 10, 30"]),
        ("[gateway]\nclient_rate = 0", [":2: gateway.client_rate: it is a number above 0 on, not 0"]),
        ("[gateway]\nclient_rate = nan", None),
        ("[cluster]\nbase_port = 65536", [":2: cluster.base_port: it is a whole number from 0 to 65,535, not 65536"]),
        ("[serve]\ndata = ['a', 'b']\nlisten = '127.0.0.1:1'", None),
        ("[serve]\ntls_ca = 'a'", None),
        ("[serve]\nlisten = '0.0.0.0:1'", None),
        ("[serve]\necho = '[::]:1'", None),
        ("[reader]\nlisten = '10.1.1.1:1'\ncluster_token_file = 't'", None),
    ],
)
def test_a_mistake_is_told_with_its_line(file: Path, text: str, told: list[str] | None) -> None:
    found = problems_of(file, text)
    assert len(found) == 1
    assert told is None or found == told


def test_all_mistakes_are_told_at_once(file: Path) -> None:
    assert len(problems_of(file, "[serve]\na = 1\nb = 2\naccounts_max = 0\n[reader]\nlisten = 1\n")) == 4


def test_the_network_may_be_trusted_and_names_are_judged_when_they_are_bound(file: Path) -> None:
    assert problems_of(file, "[serve]\nlisten = '0.0.0.0:1'\ninsecure_listen = true") == []
    assert problems_of(file, "[serve]\nlisten = 'books.example.org:1'") == []
    exposed = "[serve]\nlisten = '0.0.0.0:1'\ntls_cert = 'c'\ntls_key = 'k'\ncluster_token_file = 't'"
    assert problems_of(file, exposed) == []


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("[fe80::1%eth0]:1", False),
        ("10.0.0.1:1", False),
        ("here:1", None),
    ],
)
def test_who_can_reach_an_address(listen: str, expected: bool | None) -> None:
    assert is_loopback(listen) is expected


def test_a_command_wants_its_table_and_a_file_that_is_right(
    served: dict[str, Any], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("[gateway]\n")
    assert main(["serve", "--config", str(file)]) == 2
    assert f"{file} has no table [serve]" in capsys.readouterr().err
    file.write_text("[serve]\ndata = 'x'\n[gateway]\nx = 1\ny = 2\n")
    assert main(["serve", "--config", str(file)]) == 2
    assert f"{file}:4: gateway.x: there is no such setting (and 1 more)" in capsys.readouterr().err
    assert served == {}


def test_a_file_that_cannot_be_read_is_a_wrong_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large, binary = tmp_path / "large", tmp_path / "binary"
    large.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    binary.write_bytes(b"\xff\xfe")
    for path, told in (
        (large, "is larger than"),
        (binary, "is not UTF-8"),
        (tmp_path / "none", "No such file"),
        (tmp_path, "Is a directory"),
    ):
        assert main(["config", "check", str(path)]) == 2
        assert told in capsys.readouterr().err


def test_check_looks_at_the_files_that_are_named(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", str(file)]) == 1
    out = capsys.readouterr().out
    assert "serve: tls_cert: there is no file /etc/c.pem" in out
    assert f"serve: tls_key: there is no file {file.parent}/keys/k.pem" in out
    (file.parent / "t").write_text("not a token")
    file.write_text("[serve]\ndata = 'x'\ncluster_token_file = 't'\n")
    assert main(["config", "check", str(file)]) == 1
    assert "not a token" not in capsys.readouterr().out
    file.write_text("[serve]\ndata = 'x'\n[gateway]\n")
    assert main(["config", "check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: good, for bezant serve, bezant gateway\n"


def test_the_template_is_a_file_that_is_right_also_with_every_setting_in_it(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "explain"]) == 0
    template = capsys.readouterr().out
    assert problems_of(file, template) == []
    file.write_text(
        "\n".join(line[1:] if line.startswith("#") and line[1:2] != " " else line for line in template.splitlines())
    )
    found = read_config(file)
    assert found.problems == []
    assert {name: list(values) for name, values in found.tables.items()} == {
        name: list(settings_of(kind)) for name, kind in TABLES.items()
    }


def test_one_table_may_be_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "explain", "reader"]) == 0
    out = capsys.readouterr().out
    assert "[reader]" in out
    assert "[serve]" not in out
    assert main(["config", "explain", "raeder"]) == 2


def test_defaults_are_those_of_the_engine_and_of_the_gateway() -> None:
    told, true = Serve(data=["d"]), ReplicaSettings()
    assert (told.accounts_max, told.holds_max) == (true.accounts_max, true.holds_max)
    assert (told.checkpoint_ids, told.checkpoint_entries) == (true.checkpoint_ids, true.checkpoint_entries)
    assert told.free_space_floor_mib * MIB == true.free_space_floor
    assert told.segment_size_mib * MIB == true.segment_size
    assert told.ids_memory_mib * MIB == true.ids_memory_bytes
    assert told.snapshot_behind_mib * MIB == true.snapshot_behind_bytes
    assert DEADLINES_S == gateway_settings.DEADLINES_S
    gateway = gateway_settings.GatewaySettings(connect="")
    for field in set(gateway.__struct_fields__) & set(settings_of(Gateway)) - {"connect", "hosts", "webhook_allow"}:
        assert getattr(Gateway(), field) == getattr(gateway, field), field


def test_the_shards_of_one_process_are_told_what_it_was_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bezant.cli import serve_shards

    told: list[Any] = []

    async def fake(folders: list[Path], words: list[str], *_: object) -> int:
        told.extend([folders, words])
        return 0

    monkeypatch.setattr(serve_shards, "serve_shards", fake)
    file.write_text("[serve]\ndata = ['a', 'b']\nreader = false\naccounts_max = 9\ncheckpoint_ids = 3145728\n")
    assert main(["serve", "--config", str(file), "--insecure-listen", "--repair-from-group", "--holds-max", "5"]) == 0
    assert told[0] == [file.parent / "a", file.parent / "b"]
    assert sorted(told[1](1)) == [
        "--accounts-max=9",
        "--holds-max=5",
        "--insecure-listen",
        "--no-reader",
        "--repair-from-group",
    ]


def test_a_node_serves_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "bezant.toml").write_text(
        "[serve]\ndata = 'books'\nlisten = '127.0.0.1:0'\nreader = false\nids_memory_mib = 64\n"
    )
    command = [sys.executable, "-m", "bezant", "serve", "--config", "bezant.toml"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening on 127.0.0.1:")
        process.terminate()
        assert process.wait(60) == 0
    assert (tmp_path / "books" / "shard-0000").is_dir()
