"""`bezant cluster --shards` initialises shards and their metadata group once, and they work without that group, too."""

import asyncio
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bezant
from bezant.cli import ports
from bezant.cli.errors import InputWrong
from bezant.cli.local_cluster import LocalCluster, init_cluster, node_files, node_folder
from bezant.cli.local_shards import (
    METADATA_ARGUMENTS,
    METADATA_FOLDER,
    LocalShards,
    Plan,
    group_folders,
    init_shards,
    read_plan,
    shard_folder,
    shards_need_init,
)
from bezant.cli.main import main
from bezant.cli.node_process import WRITE_SIDE_COMMAND
from bezant.cli.session import run_async
from bezant.engine.placement.file import read_map
from bezant.engine.placement.maps import with_slots_moved
from bezant.net.placement.store import open_store
from bezant.protocol.errors import CorruptLog
from bezant.protocol.names import account_id, slot_of
from bezant.protocol.placement import METADATA_SHARD, SLOT_COUNT, SlotMap

SMALL = ("--segment-size-mib", "8", "--ids-memory-mib", "64")
WAIT_S = 120.0
CURRENCY = "EUR"


def say_nothing(_words: str, _fields: dict[str, Any]) -> None:
    """Nobody listens."""


# ---- first use ----


def test_shards_are_initialised_one_behind_the_other(tmp_path: Path) -> None:
    plan = Plan(2, 3, 9000)
    init_shards(tmp_path, plan)
    assert read_plan(tmp_path) == plan
    addresses = [
        [node.client_address for node in node_files(folder).values()] for folder in group_folders(tmp_path, plan)
    ]
    assert addresses == [
        ["127.0.0.1:9012", "127.0.0.1:9014", "127.0.0.1:9016"],
        ["127.0.0.1:9000", "127.0.0.1:9002", "127.0.0.1:9004"],
        ["127.0.0.1:9006", "127.0.0.1:9008", "127.0.0.1:9010"],
    ]
    metadata = node_files(tmp_path / METADATA_FOLDER).values()
    assert {(node.shard, tuple(node.placement)) for node in metadata} == {(METADATA_SHARD, ())}
    for shard in (0, 1):
        nodes = node_files(shard_folder(tmp_path, shard)).values()
        assert {(node.shard, tuple(node.placement)) for node in nodes} == {(shard, tuple(addresses[0]))}
    assert not shards_need_init(tmp_path, plan)
    everywhere = [node for folder in group_folders(tmp_path, plan) for node in node_files(folder).values()]
    assert len({node.cluster_id for node in everywhere}) == 3


def test_an_initialisation_that_was_interrupted_is_finished(tmp_path: Path) -> None:
    plan = Plan(3, 1, 0)
    init_shards(tmp_path, plan)
    before = node_files(shard_folder(tmp_path, 0))
    (node_folder(shard_folder(tmp_path, 2), 1) / "node").unlink()
    node_folder(shard_folder(tmp_path, 2), 1).rmdir()
    assert shards_need_init(tmp_path, plan)
    init_shards(tmp_path, plan)
    assert not shards_need_init(tmp_path, plan)
    assert node_files(shard_folder(tmp_path, 0)) == before
    places = {tuple(node_files(shard_folder(tmp_path, shard))[1].placement) for shard in range(3)}
    assert places == {(node_files(tmp_path / METADATA_FOLDER)[1].client_address,)}


def test_who_finishes_an_initialisation_draws_no_port_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it is another process that happens to begin where the first one did: nobody listens there yet."""
    plan = Plan(3, 1, 0)
    monkeypatch.setattr(ports, "_offsets", itertools.count(100))
    init_shards(tmp_path, plan)
    (node_folder(shard_folder(tmp_path, 2), 1) / "node").unlink()
    monkeypatch.setattr(ports, "_offsets", itertools.count(100))
    init_shards(tmp_path, plan)
    nodes = [node for folder in group_folders(tmp_path, plan) for node in node_files(folder).values()]
    addresses = [at for node in nodes for at in (node.client_address, node.members[0].peer_address)]
    assert len(set(addresses)) == len(addresses) == 8


def test_with_the_map_elsewhere_there_is_no_metadata_group(tmp_path: Path) -> None:
    plan = Plan(2, 1, 0, ["zookeeper://127.0.0.1:2181/bezant"])
    init_shards(tmp_path, plan)
    assert not (tmp_path / METADATA_FOLDER).exists()
    assert node_files(shard_folder(tmp_path, 1))[1].placement == plan.placement


@pytest.mark.parametrize("shards", [0, 1, 4096])
def test_what_is_not_several_shards_is_told(tmp_path: Path, shards: int) -> None:
    with pytest.raises(InputWrong, match="2 to 4095 shards"):
        init_shards(tmp_path / "deep", Plan(shards, 1, 0))
    assert not (tmp_path / "deep").exists()


def test_a_group_does_not_become_one_of_several(tmp_path: Path) -> None:
    init_cluster(tmp_path, 1, 0)
    with pytest.raises(InputWrong, match="take another folder for shards"):
        init_shards(tmp_path, Plan(2, 1, 0))


def test_a_damaged_plan_is_told(tmp_path: Path) -> None:
    init_shards(tmp_path, Plan(2, 1, 0))
    (tmp_path / "shards").write_text('{"shards": 2')
    with pytest.raises(CorruptLog, match="is not as `bezant cluster` wrote it"):
        read_plan(tmp_path)


# ---- the real thing ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of one node, initialised and never started."""
    made = tmp_path_factory.mktemp("shards")
    init_shards(made, Plan(2, 1, 0))
    return made


async def until_map(shards: LocalShards, version: int) -> None:
    """Return when every node goes by a map of this version."""
    async with asyncio.timeout(WAIT_S):
        for address in shards.addresses:
            while await map_version(address) < version:
                await asyncio.sleep(0.05)


async def map_version(address: str) -> int:
    async with bezant.connect(address) as wallet:
        return wallet.welcome.map_version


async def test_two_shards_and_a_client(folder: Path) -> None:
    async with LocalShards(folder, say_nothing, arguments=SMALL, command=WRITE_SIDE_COMMAND) as shards:
        names = [f"wallet:{number}" for number in range(40)]
        async with bezant.connect(shards.addresses[1]) as wallet:
            opened = await asyncio.gather(
                *(wallet.open_account(name, CURRENCY, limit=bezant.UNLIMITED) for name in names)
            )
            assert all(result.committed for result in opened)
            halves: dict[int, list[str]] = {0: [], 1: []}
            for name in names:
                halves[slot_of(account_id(name, CURRENCY)) // (SLOT_COUNT // 2)].append(name)
            for half in halves.values():
                assert (await wallet.transfer(half[0], half[1], "1.00", CURRENCY)).committed
            assert {account.name async for account in wallet.accounts()} == set(names)
            await follow_a_later_map(shards, wallet)
            await go_on_without_the_metadata_group(folder, shards, halves)
        await shards.stop()


async def follow_a_later_map(shards: LocalShards, wallet: bezant.Wallet) -> None:
    store = open_store(shards.placement)
    found = await store.read()
    assert isinstance(found, SlotMap)
    later = with_slots_moved(found, [slot_of(account_id("wallet:new", CURRENCY))], 0)
    assert await store.replace(found.version, later) == later
    await store.close()
    await until_map(shards, later.version)
    assert (await wallet.open_account("wallet:new", CURRENCY)).committed


async def go_on_without_the_metadata_group(folder: Path, shards: LocalShards, halves: dict[int, list[str]]) -> None:
    """Nodes serve, and start again, by the map in their folders."""
    assert shards.metadata is not None
    await shards.metadata.stop()
    node = shards.shards[1].nodes[1]
    await node.stop()
    kept = read_map(node_folder(shard_folder(folder, 1), 1))
    assert kept is not None
    assert kept.version == 2
    node.start()
    await node.ready()
    async with bezant.connect(shards.addresses[0]) as wallet:
        for half in halves.values():
            assert (await wallet.transfer(half[0], half[1], "1.00", CURRENCY)).committed
    await shards.metadata.start()
    await shards.metadata.await_leader()
    store = open_store(shards.placement)
    assert await store.read() == kept
    await store.close()


def test_the_map_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def shown() -> None:
        async with LocalShards(folder, say_nothing, arguments=SMALL, command=WRITE_SIDE_COMMAND) as shards:
            command = [sys.executable, "-m", "bezant", "shards", "--connect", shards.addresses[1]]
            for words in (command, [*command, "--json"]):
                done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, check=True)
                told.append(done.stdout)
            await shards.stop()

    told: list[str] = []
    asyncio.run(shown())
    assert told[0].splitlines()[0].startswith("shard")
    assert "of the slot map" in told[0]
    found = json.loads(told[1])
    assert [shard["shard"] for shard in found["shards"]] == [0, 1]
    assert sum(shard["slots"] for shard in found["shards"]) == SLOT_COUNT
    assert all(shard["leader"] for shard in found["shards"])
    assert capsys.readouterr().err == ""


def test_the_folder_of_all_shards_is_verified_as_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--data", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    nodes = [str(node_folder(shard_folder(folder, shard), 1)) for shard in (0, 1)]
    assert [each["data"] for each in told["folders"]] == nodes
    across = told["across"]
    assert across["shards"] == [0, 1]
    assert across["transfers"] == across["confirmed"] + across["cancelled"] + across["open"]
    words = ["verify", *(word for node in nodes for word in ("--data", node))]
    assert main(words) == 0
    assert "between the shards 0, 1: " in capsys.readouterr().out
    metadata = str(node_folder(folder / METADATA_FOLDER, 1))
    assert (main(["verify", "--data", nodes[0], "--data", metadata]) != 0) == bool(across["transfers"])


def test_a_group_that_is_the_only_one_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init_cluster(tmp_path, 1, 0)
    address = node_files(tmp_path)[1].client_address
    assert main(["shards", "--connect", address, "--timeout", "0.2"]) == 1
    assert address in capsys.readouterr().err


def test_the_folder_of_any_shard_can_be_examined(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As that of a node whose shard is the only one, by every command that takes a data folder."""
    for group in (folder / METADATA_FOLDER, shard_folder(folder, 0), shard_folder(folder, 1)):
        data = str(node_folder(group, 1))
        for words in (["verify", "--data", data], ["doctor", "--data", data], ["accounts", "--data", data]):
            status = main(words)
            told = capsys.readouterr()
            assert status == 0, (words, told.err)


def test_the_first_map_is_put_in_place_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init_cluster(tmp_path, 1, 0, shard=METADATA_SHARD)
    metadata = LocalCluster(tmp_path, say_nothing, arguments=METADATA_ARGUMENTS)
    try:
        run_async(metadata.start())
        run_async(metadata.await_leader())
        words = ["shards", "--placement", metadata.addresses[0]]
        assert main(words) == 1
        assert "there is no slot map yet" in capsys.readouterr().err
        first = [*words, "--first", "1=127.0.0.1:1", "--first", "0=127.0.0.1:2,127.0.0.1:3"]
        for _ in range(2):
            assert main(first) == 0
            assert "start the nodes of the 2 shards" in capsys.readouterr().err
        assert main([*words, "--first", "0=127.0.0.1:2"]) == 1
        assert "there is a slot map already, of version 1" in capsys.readouterr().err
        assert main([*words, "--timeout", "2", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert [(shard["shard"], shard["slots"], shard["leader"]) for shard in told["shards"]] == [
            (0, SLOT_COUNT // 2, ""),
            (1, SLOT_COUNT // 2, ""),
        ]
        assert all("cannot be reached" in shard["problem"] for shard in told["shards"])
        run_async(metadata.stop())
    finally:
        metadata.end()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--first", "0=a:1"], "--first goes with --placement"),
        (["--placement", "a:1", "--first", "0=a:1", "--first", "0=b:1"], "a shard is given twice"),
        (["--placement", "a:1", "--first", "0=a:1", "--first", "1=a:1"], "stands in a slot map twice"),
    ],
)
def test_a_first_map_that_cannot_be_is_told(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shards", *words]) == 2
    assert why in capsys.readouterr().err


async def test_questions_go_to_the_reader_of_the_shard_with_the_account(folder: Path) -> None:
    shards = LocalShards(folder, say_nothing, arguments=SMALL)
    async with shards, bezant.connect(shards.addresses[0], timeout_s=WAIT_S) as wallet:
        for shard in (0, 1):
            debit, credit = await fresh_accounts(wallet, shard)
            result = await wallet.transfer(debit, credit, "3.00", CURRENCY)
            wait_for = result.position or 0
            statement = [event async for event in wallet.history.statement(credit, CURRENCY, wait_for=wait_for)]
            assert [event.effective_amount for event in statement] == [0, 300]
            _, then = await wallet.history.account(credit, CURRENCY, wait_for=wait_for)
            assert then is not None
            assert then.balance == 300
            found = [event async for event in wallet.history.transfers(account=(debit, CURRENCY), wait_for=wait_for)]
            assert found[-1].id == result.id
            assert [hold async for hold in wallet.history.holds(account=(debit, CURRENCY))] == []
            assert bezant.check_receipt(await wallet.receipts.receipt(wait_for)).position == wait_for
            await wallet.set_metadata((credit, CURRENCY), {"shard": shard})
            assert await wallet.metadata((credit, CURRENCY)) == {"shard": shard}
            async for event in wallet.subscribe(accounts=[credit], currency=CURRENCY, kinds=["transfer"], after=0):
                assert event.id == result.id
                break
        await wallet.close()
        await shards.stop()


async def fresh_accounts(wallet: bezant.Wallet, shard: int) -> tuple[str, str]:
    """Two new accounts of a shard; the first may owe."""
    names = [f"{{reader:{number}}}" for number in range(1000)]
    tag = next(name for name in names if slot_of(account_id(name, CURRENCY)) // (SLOT_COUNT // 2) == shard)
    debit, credit = f"{tag}:debit", f"{tag}:credit"
    assert (await wallet.open_account(debit, CURRENCY, limit=bezant.UNLIMITED)).committed
    assert (await wallet.open_account(credit, CURRENCY)).committed
    return debit, credit
