"""Claim: ports are drawn of which none is in use, and none is drawn twice."""

import socket
import subprocess
import sys
from itertools import count

import pytest

from bezant.cli import ports
from bezant.cli.errors import CommandFailed
from bezant.cli.ports import HOST, PORT_MIN, PORTS_COUNT, free_addresses, free_ports


def test_no_port_is_drawn_twice() -> None:
    drawn = [port for _ in range(20) for port in free_ports(10)]
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= set(range(PORT_MIN, PORT_MIN + PORTS_COUNT))
    assert len(set(free_addresses(3))) == 3


def test_what_is_in_use_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    (taken,) = free_ports(1)
    with socket.socket() as held:
        held.bind((HOST, taken))
        monkeypatch.setattr(ports, "_offsets", count(taken - PORT_MIN))
        monkeypatch.setattr(ports, "_claim", lambda _: True)  # Or it would be passed over for that.
        assert taken not in free_ports(2)


@pytest.mark.skipif(sys.platform != "linux", reason="there are no abstract names of sockets here")
def test_what_another_process_has_drawn_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nobody has it open: its server has not been started yet, or is being started again."""
    command = "from bezant.cli.ports import free_ports; print(*free_ports(2), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        drawn = [int(word) for word in other.stdout.readline().split()]
        for is_claimed in (True, False):
            monkeypatch.setattr(ports, "_offsets", count(drawn[0] - PORT_MIN))
            assert (not set(drawn) & set(free_ports(2))) == is_claimed
            other.communicate("")


def test_none_left_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind((HOST, 0))
        monkeypatch.setattr(ports, "PORT_MIN", held.getsockname()[1])
        monkeypatch.setattr(ports, "PORTS_COUNT", 1)
        with pytest.raises(CommandFailed, match="no 1 ports"):
            free_ports(1)
