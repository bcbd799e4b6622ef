"""Claim: whatever keeps the slot map, of two who replace it one succeeds, and everybody hears of it."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bezant.engine.placement.maps import first_map, with_shard, with_slots_moved
from bezant.net.placement.memory import MemoryStore
from bezant.net.placement.metadata import MetadataStore
from bezant.net.placement.store import PlacementStore, open_store, parse_places
from bezant.net.server.placing import Placing
from bezant.protocol.errors import ConnectionFailed, UsageError
from bezant.protocol.placement import METADATA_SHARD, SlotMap

from ..server.node import Node
from .zookeeper_server import ZooKeeperServer

WAIT_S = 20.0
FIRST = first_map({0: ["a:1"], 1: ["b:1"]})
SECOND = with_slots_moved(FIRST, range(100), 1)
ANOTHER = with_shard(FIRST, 2, ["c:1"])
THIRD = with_slots_moved(SECOND, range(100), 0)

OpenStore = Callable[[], PlacementStore]
_numbers = itertools.count()


async def next_map(watch: AsyncIterator[SlotMap]) -> SlotMap:
    async with asyncio.timeout(WAIT_S):
        return await anext(watch)


class StoreTests:
    """What every home of slot maps does. Two stores that `open_store` opened within a test have the same home."""

    @pytest.fixture
    async def store(self, open_one: OpenStore) -> AsyncIterator[PlacementStore]:
        store = open_one()
        yield store
        await store.close()
        await store.close()

    @pytest.fixture
    async def other(self, open_one: OpenStore) -> AsyncIterator[PlacementStore]:
        other = open_one()
        yield other
        await other.close()

    async def test_there_is_no_map_at_first(self, store: PlacementStore) -> None:
        assert await store.read() is None
        with pytest.raises(UsageError, match="there is no slot map yet"):
            await store.replace(1, SECOND)
        assert await store.read() is None

    async def test_what_is_put_in_place_is_read_by_everybody(
        self, store: PlacementStore, other: PlacementStore
    ) -> None:
        assert await store.replace(0, FIRST) == FIRST
        assert await other.read() == FIRST
        assert await other.replace(1, SECOND) == SECOND
        assert await store.read() == SECOND

    async def test_a_replacement_can_be_asked_again(self, store: PlacementStore) -> None:
        for _ in range(2):
            assert await store.replace(0, FIRST) == FIRST
        await store.replace(1, SECOND)
        assert await store.replace(1, SECOND) == SECOND

    async def test_whoever_is_late_is_told_what_is_in_force(self, store: PlacementStore, other: PlacementStore) -> None:
        await store.replace(0, FIRST)
        await store.replace(1, SECOND)
        assert await other.replace(1, ANOTHER) == SECOND
        assert await other.replace(0, FIRST) == SECOND
        assert await store.read() == SECOND

    async def test_a_map_without_the_next_version_is_refused(self, store: PlacementStore) -> None:
        await store.replace(0, FIRST)
        for expected in (0, 2):
            with pytest.raises(UsageError, match=f"follows version {expected}"):
                await store.replace(expected, SECOND)
        assert await store.read() == FIRST

    async def test_of_two_at_the_same_time_one_succeeds(self, store: PlacementStore, other: PlacementStore) -> None:
        await store.replace(0, FIRST)
        told = await asyncio.gather(store.replace(1, SECOND), other.replace(1, ANOTHER))
        assert told[0] == told[1] == await store.read()
        assert told[0] in (SECOND, ANOTHER)

    async def test_a_watch_tells_of_later_maps_alone(self, store: PlacementStore, other: PlacementStore) -> None:
        watch = other.watch(0)
        first = asyncio.create_task(next_map(watch))
        await asyncio.sleep(0.05)
        await store.replace(0, FIRST)
        assert await first == FIRST
        second = asyncio.create_task(next_map(watch))
        await asyncio.sleep(0.05)
        assert not second.done()
        await store.replace(1, SECOND)
        assert await second == SECOND
        later = store.watch(2)
        third = asyncio.create_task(next_map(later))
        await asyncio.sleep(0.4)
        assert not third.done()
        await other.replace(2, THIRD)
        assert await third == THIRD
        await watch.aclose()  # type: ignore[attr-defined]
        await later.aclose()  # type: ignore[attr-defined]

    async def test_a_watch_begins_with_what_there_is(self, store: PlacementStore) -> None:
        await store.replace(0, FIRST)
        await store.replace(1, SECOND)
        watch = store.watch(1)
        assert await next_map(watch) == SECOND
        await watch.aclose()  # type: ignore[attr-defined]


class TestMemory(StoreTests):
    @pytest.fixture
    def open_one(self) -> OpenStore:
        shared = MemoryStore()
        return lambda: shared


class TestMetadataGroup(StoreTests):
    @pytest.fixture
    async def node(self, tmp_path: Path) -> AsyncIterator[Node]:
        node = Node(tmp_path, shard=METADATA_SHARD)
        node.reactor.placing = Placing(METADATA_SHARD)
        await node.start()
        yield node
        await node.stop()

    @pytest.fixture
    def open_one(self, node: Node) -> OpenStore:
        return lambda: open_store([f"127.0.0.1:{node.port}"])

    async def test_the_map_is_durable(self, tmp_path: Path, node: Node, store: PlacementStore) -> None:
        await store.replace(0, FIRST)
        await store.close()
        await node.stop()
        again = Node(tmp_path, shard=METADATA_SHARD)
        assert again.replica.slot_map == FIRST
        await again.start()
        await again.stop()


class TestZooKeeper(StoreTests):
    @pytest.fixture
    def open_one(self, zookeeper: ZooKeeperServer) -> OpenStore:
        place = f"zookeeper://{zookeeper.address}/bezant/test-{next(_numbers)}/slot-map"
        return lambda: open_store([place])

    async def test_a_watch_outlives_the_server(self, zookeeper: ZooKeeperServer, open_one: OpenStore) -> None:
        store, other = open_one(), open_one()
        await store.replace(0, FIRST)
        watch = other.watch(0)
        assert await next_map(watch) == FIRST
        zookeeper.stop()
        waiting = asyncio.create_task(next_map(watch))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(zookeeper.start)
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    assert await store.replace(1, SECOND) == SECOND
                except ConnectionFailed:
                    await asyncio.sleep(0.1)
                else:
                    break
        assert await waiting == SECOND
        await watch.aclose()  # type: ignore[attr-defined]
        await store.close()
        await other.close()

    async def test_what_is_no_map_is_told(self, zookeeper: ZooKeeperServer) -> None:
        from kazoo.client import KazooClient

        def put() -> None:
            client = KazooClient(zookeeper.address)
            client.start()
            client.create("/odd", b"not a map")
            client.stop()
            client.close()

        await asyncio.to_thread(put)
        store = open_store([f"zookeeper://{zookeeper.address}/odd"])
        with pytest.raises(UsageError, match="at /odd is no slot map"):
            await store.read()
        await store.close()

    @pytest.mark.parametrize(
        "place", ["zookeeper://", "zookeeper://a:1", "zookeeper://a:1/", "zookeeper:///x", "zookeeper://a:1/x/"]
    )
    def test_a_place_that_is_none_is_told(self, zookeeper: ZooKeeperServer, place: str) -> None:
        with pytest.raises(UsageError, match="is written zookeeper://HOST:PORT"):
            open_store([place])

    def test_one_place_names_all_servers(self, zookeeper: ZooKeeperServer) -> None:
        with pytest.raises(UsageError, match="names all its servers"):
            open_store([f"zookeeper://{zookeeper.address}/a", "zookeeper://127.0.0.1:1/a"])


async def test_a_group_of_accounts_keeps_no_map(tmp_path: Path) -> None:
    node = Node(tmp_path)
    await node.start()
    store = MetadataStore(f"127.0.0.1:{node.port}")
    with pytest.raises(UsageError, match="where shard 0 is, and no metadata group"):
        await store.read()
    await store.close()
    await node.stop()


async def test_nobody_there_is_told_and_a_watch_waits() -> None:
    store = MetadataStore("127.0.0.1:1", timeout_s=0.3)
    with pytest.raises(ConnectionFailed):
        await store.read()
    watch = asyncio.create_task(next_map(store.watch(0)))
    await asyncio.sleep(0.3)
    assert not watch.done()
    watch.cancel()
    await asyncio.wait([watch])
    await store.close()


def test_places_are_read_as_they_are_written() -> None:
    assert parse_places("zookeeper://a:1,b:2/x") == ["zookeeper://a:1,b:2/x"]
    assert parse_places("a:1,b:2") == ["a:1", "b:2"]
    with pytest.raises(UsageError):
        parse_places("a")
    with pytest.raises(UsageError, match="was not said"):
        open_store([])
