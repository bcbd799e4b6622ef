"""What a home of slot maps can do, and which one an operator means."""

from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol

from bezant.protocol.errors import UsageError
from bezant.protocol.placement import SlotMap

ZOOKEEPER_SCHEME: Final = "zookeeper://"
REQUEST_TIMEOUT_S: Final = 5.0
"""Seconds that one read or replacement may take."""
BACKOFF_S_MIN: Final = 0.05
BACKOFF_S_MAX: Final = 1.0
"""Seconds between attempts of a watch at a store that is away, doubled each time."""


class PlacementStore(Protocol):
    """Keeps one slot map. Used from one event loop; calls may overlap."""

    async def read(self) -> SlotMap | None:
        """The map in force: no older than any that was in force when this was called. None if there never was one.

        Raises `ConnectionFailed` while the store cannot be reached.
        """
        ...

    async def replace(self, expected_version: int, wanted: SlotMap) -> SlotMap:
        """Put a map in the place of the one that has this version (0: there is none); returns the map in force then.

        That is `wanted`, or another one if the version was not as expected, and nothing has changed. Asked again with
        the same map it says so. Raises `UsageError` for a map that cannot follow, `ConnectionFailed`: it is not known
        whether it was replaced.
        """
        ...

    def watch(self, after_version: int) -> AsyncIterator[SlotMap]:
        """Maps later than a version, soon after they are in force, for ever. Of several only the last may be told.

        Waits for a store that cannot be reached.
        """
        ...

    async def close(self) -> None:
        """Let go of the store. May be called again."""
        ...


def open_store(places: Sequence[str]) -> PlacementStore:
    """The store at client addresses of a metadata group, or at one "zookeeper://HOST:PORT,.../PATH".

    Nothing is asked of it yet. Raises `UsageError` for places that cannot be, or without the extra that it needs.
    """
    if not places:
        raise UsageError("where slot maps are kept was not said")
    if places[0].startswith(ZOOKEEPER_SCHEME):
        from bezant.net.placement.zookeeper import ZooKeeperStore  # only with its extra

        if len(places) > 1:
            raise UsageError("one zookeeper:// address names all its servers: zookeeper://HOST:PORT,HOST:PORT/PATH")
        return ZooKeeperStore(places[0])
    from bezant.net.placement.metadata import MetadataStore

    return MetadataStore(",".join(places))


def parse_places(text: str) -> list[str]:
    """What `--placement` says, as `open_store` takes it. Raises `UsageError`."""
    from bezant.net.client.route import parse_addresses

    return [text] if text.startswith(ZOOKEEPER_SCHEME) else parse_addresses(text)
