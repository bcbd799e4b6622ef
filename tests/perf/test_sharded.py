"""Claim: a load over shards stays in each shard but for the share that is to cross, and its books are those of all."""

import json
from pathlib import Path

import numpy as np
import pytest

from bezant.cli.main import main
from bezant.perf.load.cross import CrossRing
from bezant.perf.load.session import Settings, check_settings
from bezant.protocol.errors import UsageError
from bezant.protocol.frames import FRAME_HEADER_SIZE, Operation, check_frame
from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import COMMAND, Records

OWN = (np.arange(1, 51, dtype=np.int64), np.arange(1, 51, dtype=np.int64) + 1000)
OTHERS = (np.arange(101, 131, dtype=np.int64), np.arange(101, 131, dtype=np.int64) + 1000)


def sent(cross: float, batch: int, transfers: int = 20_000) -> Records:
    """The commands of all frames of a ring, answered as they go out."""
    ring = CrossRing(
        own=OWN,
        others=OTHERS,
        cross=cross,
        transfers=transfers,
        batch=batch,
        frames_in_flight_max=1,
        rising_ids=True,
        seed=7,
    )
    frames = []
    while ring.built < ring.frame_count and ring.prepare():
        while ring.sent < ring.built:
            _, data = ring.take(1, 0, 1)
            header = check_frame(data)
            assert (header.operation, header.request_id) == (Operation.COMMANDS, len(frames))
            frames.append(bytes(data[FRAME_HEADER_SIZE:]))
    return np.frombuffer(b"".join(frames), COMMAND)


@pytest.mark.parametrize(("cross", "batch"), [(0.0, 100), (0.15, 100), (1.0, 100), (0.5, 1)])
def test_the_share_that_is_asked_for_crosses(cross: float, batch: int) -> None:
    commands = sent(cross, batch, 20_000 if batch > 1 else 2_000)
    crosses = np.isin(commands["credit_head"], OTHERS[0])
    assert abs(crosses.mean() - cross) < (0.02 if batch > 1 else 0.05)
    assert np.isin(commands["debit_head"], OWN[0]).all()
    assert np.isin(commands["credit_head"][~crosses], OWN[0]).all()
    assert (commands["debit_head"] != commands["credit_head"]).all()
    for side in ("debit", "credit"):
        assert (commands[f"{side}_tail"] == commands[f"{side}_head"] + 1000).all()
    assert set(commands["kind"].tolist()) == {CommandKind.TRANSFER}
    assert commands["amount"].min() >= 1
    assert len({row.tobytes()[:16] for row in commands}) == len(commands)
    drawn = set(commands["debit_head"].tolist()) | set(commands["credit_head"].tolist())
    assert len(drawn & set(OWN[0].tolist())) == len(OWN[0])


@pytest.mark.parametrize("cross", ["0", "0.5"])
def test_transfers_on_two_shards_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str], cross: str) -> None:
    words = ["--accounts", "200", "--transfers", "301", "--batch", "10", "--shards", "2", "--cross", cross]
    assert main(["bench", "transfers", *words, "--directory", str(tmp_path), "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["accepted"] + fields["rejected"] == 301
    if cross == "0":
        assert fields["rejected"] == 0
    assert fields["accepted"] > 100
    assert fields["books_fault"] is None
    assert (fields["shards"], fields["cross"]) == (2, float(cross))
    assert fields["kinds"] == {"plain": 301}
    assert all(value > 0 for value in fields["latency_us"].values())
    assert fields["bytes_on_disk"] >= 192 * 301
    assert fields["cpu"]["node"] is not None
    assert list(tmp_path.iterdir()) == []


def test_transfers_out_of_one_shard_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--accounts", "200", "--transfers", "31", "--batch", "1", "--shards", "2", "--loaded-shards", "1"]
    assert main(["bench", "transfers", *words, "--cross", "1", "--directory", str(tmp_path), "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["accepted"] + fields["rejected"] == 31
    assert (fields["loaded_shards"], fields["books_fault"]) == (1, None)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cross": 0.5}, "--cross goes with --shards"),
        ({"shards": 0}, "--shards is 1 to"),
        ({"shards": 2, "cross": 1.5}, "--cross is 0 to 1"),
        ({"shards": 2, "loaded_shards": 3}, "--loaded-shards is 1 to 2"),
        ({"shards": 2, "loaded_shards": 0}, "--loaded-shards is 1 to 2"),
        ({"shards": 2, "connect": "127.0.0.1:1"}, "--shards is for nodes that are started"),
        ({"shards": 2, "load": "mixed"}, "are for one shard"),
        ({"shards": 2, "ids_before": 1}, "are for one shard"),
        ({"shards": 2, "zipf": 1.0}, "are for one shard"),
        ({"shards": 2, "transfers": 1}, "one for each of the 2 shards"),
    ],
)
def test_what_cannot_be_measured_is_told(changes: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        check_settings(Settings(**({"kind": "transfers", "accounts": 20, "transfers": 10_000} | changes)))  # type: ignore[arg-type]
