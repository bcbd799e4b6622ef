"""Which shard has which slot: the slot map, as it travels and as it is kept. The page ``SHARDS.md`` says what it means.

An account lies in the slot that its id begins with (`names.slot_of`); the map says which shard each slot belongs to,
and where clients reach the members of each shard. A map is replaced by one with the next version, never changed.
"""

from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

SLOT_COUNT: Final = 4096
METADATA_SHARD: Final = SLOT_COUNT - 1
"""The shard number of the metadata group, which keeps the map and serves no accounts."""
SHARD_MAX: Final = METADATA_SHARD - 1
"""The greatest number of a shard that serves accounts; the smallest is 0."""
SHARD_ADDRESSES_MAX: Final = 15
"""Addresses of one shard that a map names: as many as a group has members."""
MAP_VERSION_MAX: Final = 2**63 - 1
MAP_VERSION_MASK: Final = 0xFFFF
"""What a frame header has room for: the low bits of a version."""

_OWNER: Final = np.dtype("<u2")


class ShardPlace(msgspec.Struct, frozen=True):
    """A shard and where clients reach its members, "host:port"; some of them at least, which name the others."""

    shard: int
    addresses: list[str]

    def __post_init__(self) -> None:
        """Raises ValueError, in words, for a shard that cannot be, or that nobody can reach."""
        if not 0 <= self.shard <= SHARD_MAX:
            raise ValueError(f"the number of a shard is 0 to {SHARD_MAX}, not {self.shard}")
        if not 1 <= len(self.addresses) <= SHARD_ADDRESSES_MAX:
            raise ValueError(f"shard {self.shard} has 1 to {SHARD_ADDRESSES_MAX} addresses, not {len(self.addresses)}")


class SlotMap(msgspec.Struct, frozen=True):
    """Who has each slot: ``slots`` are SLOT_COUNT shard numbers of two bytes (uint16, little-endian), in their order.

    ``shards`` names every shard that has a slot, and those that are to have some, in the order of their numbers.
    """

    version: int
    slots: bytes
    shards: list[ShardPlace]

    def __post_init__(self) -> None:
        """Raises ValueError, in words, for what no node can work with."""
        fault = self._fault()
        if fault:
            raise ValueError(fault)

    def _fault(self) -> str:
        """What is wrong with it; "" if nothing is."""
        if not 1 <= self.version <= MAP_VERSION_MAX:
            return f"the version of a slot map is 1 to {MAP_VERSION_MAX}, not {self.version}"
        if len(self.slots) != SLOT_COUNT * _OWNER.itemsize:
            return f"a slot map has {SLOT_COUNT} shard numbers of two bytes, not {len(self.slots)} bytes"
        numbers = [place.shard for place in self.shards]
        if numbers != sorted(set(numbers)):
            return "the shards of a slot map are in the order of their numbers, each once"
        unknown = sorted(set(np.unique(owners_of(self)).tolist()) - set(numbers))
        if unknown:
            return f"slots belong to shard {unknown[0]}, which the slot map does not name"
        addresses = [address for place in self.shards for address in place.addresses]
        if len(set(addresses)) != len(addresses):
            return "an address stands in a slot map twice"
        return ""


class ReplaceMap(msgspec.Struct, frozen=True):
    """Asks the metadata group to put a map in the place of the one with ``expected_version``; 0: of none."""

    expected_version: int
    map: SlotMap


class _StrictShardPlace(ShardPlace, frozen=True, forbid_unknown_fields=True):
    """A shard's place, and nothing else."""


class StrictSlotMap(SlotMap, frozen=True, forbid_unknown_fields=True):
    """A slot map of which every field, on whatever level, is known here."""

    shards: list[_StrictShardPlace]  # type: ignore[assignment]  # lists are invariant; these are never changed


def owners_of(slot_map: SlotMap) -> npt.NDArray[np.uint16]:
    """The shard number of each slot, read-only, shape (SLOT_COUNT,)."""
    return np.frombuffer(slot_map.slots, _OWNER)


def slots_of_words(heads: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The slots of account ids, given the first word of each as records hold it (`*_head`): their first 12 bits."""
    first, second = heads & 0xFF, (heads >> 8) & 0xFF
    return np.asarray(first << 4 | second >> 4)
