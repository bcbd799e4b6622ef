"""Claim: one `bezant serve` serves several shards, a process each, and starts again what ends."""

import asyncio
import itertools
import os
import signal
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import bezant
from bezant.cli import watched_nodes
from bezant.cli.errors import InputWrong
from bezant.cli.local_cluster import LocalCluster, init_cluster, node_files, node_folder
from bezant.cli.local_shards import METADATA_ARGUMENTS, METADATA_FOLDER, Plan, init_shards, shard_folder
from bezant.cli.main import main
from bezant.cli.ports import free_ports
from bezant.cli.serve_shards import ServedShards
from bezant.engine.placement.maps import first_map
from bezant.net.placement.store import open_store

FAKE_NODE = (sys.executable, "-m", "tests.cli.fake_member")
WAIT_S = 60.0
SMALL = ["--no-reader", "--segment-size-mib=8", "--ids-memory-mib=64", "--accounts-max=64"]


def folders_of(folder: Path) -> list[Path]:
    return [node_folder(shard_folder(folder, shard), 1) for shard in (0, 1)]


async def test_what_ends_is_started_again_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_nodes, "RESTART_DELAY_S", 0.01)
    init_shards(tmp_path, Plan(2, 1, 0))
    told: list[tuple[str, dict[str, Any]]] = []
    served = ServedShards(
        folders_of(tmp_path), lambda _: [], lambda words, fields: told.append((words, fields)), command=FAKE_NODE
    )
    stopping = asyncio.Event()
    try:
        await served.start()
        assert [words.partition(",")[0] for words, _ in told] == [
            f"shard {shard}: listening on {node_files(shard_folder(tmp_path, shard))[1].client_address}"
            for shard in (0, 1)
        ]
        watching = asyncio.create_task(served.watch(stopping))
        before = served.nodes[0].process_id
        os.kill(served.nodes[1].process_id, signal.SIGKILL)
        async with asyncio.timeout(WAIT_S):
            while told[-1][1]["event"] != "started":
                await asyncio.sleep(0.01)
            await served.nodes[1].ready()
        assert (told[-1][1]["node"], served.nodes[0].process_id) == (1, before)
        stopping.set()
        await watching
        await served.stop()
    finally:
        served.end()


def test_folders_that_are_not_one_nodes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init_shards(tmp_path, Plan(2, 2, 0))
    init_cluster(tmp_path / "alone", 1, 0)
    first = str(folders_of(tmp_path)[0])
    for other, why in (
        (node_folder(tmp_path / "alone", 1), "not initialised as one of several shards"),
        (tmp_path / "nothing", "not initialised as one of several shards"),
        (node_folder(shard_folder(tmp_path, 0), 2), "is of shard 0, as another one is"),
    ):
        with pytest.raises(InputWrong, match=why):
            ServedShards([Path(first), other], lambda _: [], lambda words, fields: None)
        assert main(["serve", "--data", first, "--data", str(other)]) == 1
        assert why in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["serve", "--data", first, "--data", first, "--listen", "127.0.0.1:0"])
    assert "each says where it listens" in capsys.readouterr().err
    for words, why in (
        (["--metrics", "127.0.0.1:65535"], "65535 is the last"),
        (["--metrics", "127.0.0.1:9420", "--reader-metrics", "127.0.0.1:9421"], "as `metrics` of another is"),
    ):
        with pytest.raises(SystemExit):
            main(["serve", "--data", first, "--data", first, *words])
        assert why in capsys.readouterr().err.replace("--metrics", "`metrics`").replace("``", "`")


def two_ports() -> int:
    """The first of two ports, one behind the other, that nobody has."""
    while True:
        first, second = free_ports(2)
        if second == first + 1:
            return first


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
        told: str = answer.read().decode()
    return told


async def test_real_shards_under_one_command(tmp_path: Path) -> None:
    """Money moves between them; the command and what it has started end together."""
    init_shards(tmp_path, Plan(2, 1, 0))
    metadata = LocalCluster(tmp_path / METADATA_FOLDER, lambda words, fields: None, arguments=METADATA_ARGUMENTS)
    async with metadata:
        await metadata.await_leader()
        store = open_store(metadata.addresses)
        places = {shard: [node_files(shard_folder(tmp_path, shard))[1].client_address] for shard in (0, 1)}
        await store.replace(0, first_map(places))
        await store.close()
        data = [word for folder in folders_of(tmp_path) for word in ("--data", str(folder))]
        metrics = two_ports()
        command = [sys.executable, "-m", "bezant", "serve", *data, *SMALL, "--metrics", f"127.0.0.1:{metrics}"]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        try:
            async with asyncio.timeout(WAIT_S):
                lines = [await process.stdout.readline() for _ in places]
                assert [line.split(b":")[0] for line in lines] == [b"shard 0", b"shard 1"]
                async with bezant.connect(places[0][0], timeout_s=WAIT_S) as wallet:
                    names = [f"wallet:{number}" for number in range(8)]
                    for name in names:
                        assert (await wallet.open_account(name, "EUR", limit=bezant.UNLIMITED)).committed
                    for debit, credit in itertools.pairwise(names):
                        assert (await wallet.transfer(debit, credit, "1.00", "EUR")).committed
                for shard in places:
                    told = await asyncio.to_thread(read, f"http://127.0.0.1:{metrics + shard}/metrics")
                    assert f'shard="{shard}"' in told
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        await metadata.stop()
