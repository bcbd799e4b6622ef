"""What the doctor says of a machine and of a group: a severity and, unless all is well, a next step."""

import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from bezant.cli.group_health import judge_members, judge_versions
from bezant.cli.machine import MachineFinding, examine_machine, file_system_of
from bezant.cli.main import main
from bezant.cli.settings import Serve
from bezant.protocol.messages import MembersStatus, MemberStatus

MOUNTS = (
    "/dev/root / ext4 rw,relatime 0 0",
    "tmpfs /run tmpfs rw 0 0",
    "server:/x /mnt/a\\040b nfs4 rw 0 0",
    "/dev/b /mnt ext4 rw,nobarrier 0 0",
    "broken",
)


def by_subject(findings: list[MachineFinding]) -> dict[str, MachineFinding]:
    assert all((finding.next_step != "") == (finding.severity != "good") for finding in findings)
    return {finding.subject: finding for finding in findings}


def certificate(path: Path, days: int) -> Path:
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
    ends = datetime.now(UTC) + timedelta(days=days, hours=1)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, ends - timedelta(days=900), ends).sign(key, None)
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/var/x", "ext4"), ("/run/x", "tmpfs"), ("/runner", "ext4"), ("/mnt/a b/c", "nfs4"), ("/mnt/c", "ext4")],
)
def test_the_file_system_is_that_of_the_longest_mount(path: str, kind: str) -> None:
    assert file_system_of(Path(path), MOUNTS)[0] == kind
    assert ("nobarrier" in file_system_of(Path(path), MOUNTS)[1]) == (path == "/mnt/c")


def test_a_folder_in_memory_is_an_error() -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("no file system in memory here")
    found = by_subject(examine_machine(Serve(data=["/dev/shm/bezant-none"])))
    assert found["file system"].severity == "error"


def test_syncs_are_timed_and_nothing_is_left_behind(tmp_path: Path) -> None:
    found = by_subject(examine_machine(Serve(data=[str(tmp_path / "books")])))
    assert "p50" in found["sync"].found
    assert list(tmp_path.iterdir()) == []
    assert {"open files", "locked memory", "governor", "huge pages", "clock", "free space"} <= found.keys()


def test_too_little_room_is_an_error(tmp_path: Path) -> None:
    found = by_subject(examine_machine(Serve(data=[str(tmp_path)], free_space_floor_mib=10**9)))
    assert found["free space"].severity == "error"


def test_a_key_that_others_can_read_is_an_error(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("x")
    key.chmod(0o640)
    settings = Serve(data=[str(tmp_path)], tls_key=str(key), cluster_token_file=str(tmp_path / "none"))
    found = by_subject(examine_machine(settings))
    assert (found["tls_key"].severity, found["tls_key"].next_step) == ("error", f"chmod 600 {key}")
    assert found["cluster_token_file"].severity == "error"
    key.chmod(0o600)
    assert by_subject(examine_machine(settings))["tls_key"].severity == "good"


@pytest.mark.parametrize(("days", "severity"), [(-2, "error"), (5, "warning"), (31, "good")])
def test_certificates_end(tmp_path: Path, days: int, severity: str) -> None:
    settings = Serve(data=[str(tmp_path)], tls_cert=str(certificate(tmp_path / "c.pem", days)))
    found = by_subject(examine_machine(settings))
    assert found["tls_cert"].severity == severity
    assert f"in {days} days" in found["tls_cert"].found


def test_a_port_that_somebody_has_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        found = by_subject(examine_machine(Serve(data=[str(tmp_path)], listen=address, metrics="[::1]:0")))
    assert found["listen"].severity == "warning"
    assert found["metrics"].severity in ("good", "warning")  # warning where there is no IPv6


def member(node_id: int, **changes: object) -> MemberStatus:
    settings: dict[str, object] = {"active": True, "lag_entries": 0, "clock_offset_ns": 0, **changes}
    return MemberStatus(node_id, node_id, "p", "c", "follower", "voter", **settings)  # type: ignore[arg-type]


def test_a_group_is_judged() -> None:
    members = [
        member(1),
        member(2, active=False, problem="nobody answers"),
        member(3, lag_entries=5000),
        member(4, clock_offset_ns=-200_000_000),
    ]
    found = by_subject(judge_members(MembersStatus(1, 1, 2, 3, members)))
    assert found["leader"].severity == "good"
    assert [found[f"node {number}"].severity for number in (1, 2, 3, 4)] == ["good", "warning", "warning", "warning"]
    assert "nobody answers" in found["node 2"].found
    assert "5000" in found["node 3"].found
    assert "-200 ms" in found["node 4"].found
    assert by_subject(judge_members(MembersStatus(1, 0, 2, 3, [])))["leader"].severity == "error"


def test_versions_are_compared() -> None:
    assert judge_versions({"a": "1", "b": "1"})[0].severity == "good"
    assert judge_versions({"a": "1", "b": "2"})[0].severity == "warning"
    (silent,) = judge_versions({"a": "1", "b": "1", "c": ""})
    assert silent.severity == "warning"
    assert "c did not say" in silent.found


def test_the_command_tells_and_its_status_is_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "bezant.toml"
    file.write_text("[serve]\ndata = 'books'\n")
    assert main(["doctor", "--config", str(file)]) == 0
    assert "sync" in capsys.readouterr().out
    (tmp_path / "key").write_text("x")
    (tmp_path / "key").chmod(0o644)
    file.write_text("[serve]\ndata = 'books'\ncluster_token_file = 'key'\n")
    assert main(["doctor", "--config", str(file), "--json", "--connect", "127.0.0.1:1"]) == 1
    told = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert told["cluster_token_file"]["severity"] == "error"
    assert told["group"]["severity"] == "error"
    assert main(["doctor", "--data", "books", "--connect", "127.0.0.1:1"]) == 2
