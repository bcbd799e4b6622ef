"""What lies in operations is what the program takes: units, container, composition. No container engine is needed."""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from bezant.cli.config_file import read_config
from bezant.cli.main import COMMANDS, main

ROOM = Path(__file__).parents[2] / "operations"
UNITS = sorted((ROOM / "systemd").glob("*.service"))
INSTALLED = "/opt/bezant/bin/bezant"


def unit(path: Path) -> dict[str, list[str]]:
    """The settings of a unit, with all their values."""
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        key, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def instructions() -> list[tuple[str, str]]:
    """The instructions of the container file, lines that go on joined."""
    text = re.sub(r"\\\n\s*", "", (ROOM / "Containerfile").read_text(encoding="utf-8"))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in text.splitlines() if line and line[0] != "#"]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_run_commands_that_there_are(path: Path) -> None:
    settings = unit(path)
    for line in settings["ExecStart"]:
        program, command, *words = shlex.split(line)
        assert program == INSTALLED
        assert command in COMMANDS
        assert words[-1] == "/etc/bezant/bezant.toml"
    assert settings["KillSignal"] == ["SIGTERM"]
    assert settings["Restart"] == ["on-failure"]
    assert settings["RestartPreventExitStatus"] == ["2"]
    assert settings["ProtectSystem"] == ["strict"]
    assert "MemoryDenyWriteExecute" not in settings or path.name == "bezant-gateway.service"


def test_a_node_has_the_time_that_it_needs_to_stop() -> None:
    from bezant.net.server.peering import HAND_OVER_S_MAX

    assert int(unit(ROOM / "systemd" / "bezant-node.service")["TimeoutStopSec"][0]) >= 10 * HAND_OVER_S_MAX


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_understands_the_units(path: Path, tmp_path: Path) -> None:
    installed = tmp_path / path.name
    installed.write_text(path.read_text(encoding="utf-8").replace(INSTALLED, "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(installed)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert path.name not in done.stderr


def test_the_container_copies_what_there_is_and_starts_what_there_is() -> None:
    root = ROOM.parent
    found = instructions()
    for name, rest in found:
        if name == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (root / source).exists(), source
    sources = {word for name, rest in found if name == "COPY" and "--from" not in rest for word in rest.split()[:-1]}
    packaged = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert {path.strip("/") for path in packaged["sdist"]["include"]} <= sources
    names = [name for name, _ in found]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert [rest for name, rest in found if name == "USER"] == ["bezant"]
    assert [rest for name, rest in found if name == "STOPSIGNAL"] == ["SIGTERM"]
    assert [rest for name, rest in found if name == "ENTRYPOINT"] == ['["bezant"]']
    assert [rest for name, rest in found if name == "CMD"] == ['["serve", "--config", "/etc/bezant/bezant.toml"]']


@pytest.mark.parametrize("name", ["bezant.toml", "container.toml", "compose-node.toml", "compose-gateway.toml"])
def test_files_of_settings_are_right(name: str) -> None:
    assert read_config(ROOM / name).problems == []
    assert main(["config", "check", str(ROOM / name)]) == 0


def test_the_health_check_asks_where_the_container_tells() -> None:
    (check,) = [rest for name, rest in instructions() if name == "HEALTHCHECK"]
    told = read_config(ROOM / "container.toml").tables["serve"]
    assert f"http://{told['metrics']}/healthz" in check
    exposed = next(rest for name, rest in instructions() if name == "EXPOSE").split()
    assert exposed == [told[key].rpartition(":")[2] for key in ("listen", "reader_listen")]


def test_the_composition_names_files_nodes_and_ports_that_there_are() -> None:
    text = (ROOM / "compose.yaml").read_text(encoding="utf-8")
    for file in re.findall(r"\"\./([^:\"]+):", text):
        assert (ROOM / file).is_file(), file
    told = read_config(ROOM / "compose-node.toml").tables["serve"]
    members = dict(member.split("=", 1) for member in re.search(r"MEMBERS: (\S+)", text)[1].split(","))
    assert set(members) == set(re.findall(r'NODE: "(\d)"', text)) == {"1", "2", "3"}
    for number, places in members.items():
        assert places == f"node-{number}:7430/node-{number}:{told['listen'].rpartition(':')[2]}"
        assert f"\n  node-{number}:\n    <<: *node\n" in text
    gateway = read_config(ROOM / "compose-gateway.toml").tables["gateway"]
    assert gateway["connect"].split(",") == [f"node-{number}:7420" for number in sorted(members)]
    assert f'"127.0.0.1:8080:{gateway["listen"].rpartition(":")[2]}"' in text
    scraped = re.findall(r"node-\d:(\d+)", (ROOM / "compose-prometheus.yml").read_text(encoding="utf-8"))
    assert scraped == [told["metrics"].rpartition(":")[2]] * 3
    assert all(command in COMMANDS for command in re.findall(r"(?:exec|\|\|) bezant (\w+)", text))
