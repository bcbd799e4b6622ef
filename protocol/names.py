"""From names to ids: accounts, slots and currencies; and the UUIDv7 ids that clients make.

A name is 1 to 48 printable ASCII characters without spaces. ASCII alone, because two names that look alike must be
alike; and opaque names are advised, because a name is in the history for ever. An account id is derived from the
name, so nobody allocates ids and every client computes the same one:

    key  = the text between the first "{" and the next "}" if there is one with text in it, else the name
    slot = first 12 bits of BLAKE3(key)
    id   = first 16 bytes of BLAKE3(name, zero byte, currency padded with zeros to 8 bytes), first 12 bits := slot

Accounts that belong together share a tag (``wallet:{ann}:savings``) and so a slot, in every currency.
"""

import os
import time
from typing import Final

import blake3

from bezant.protocol.errors import InvalidAmountOrName
from bezant.protocol.frames import SUBSCRIPTION_NAME_SIZE_MAX
from bezant.protocol.records import NAME_SIZE_MAX

CURRENCY_SIZE_MAX: Final = 8
TRANSIT_NAME_PREFIX: Final = "transit:"
"""How the names of transit accounts begin, and of no others."""
_CURRENCY_CHARACTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_RANDOM_SIZE: Final = 10
_RANDOM_POOL_SIZE: Final = _RANDOM_SIZE * 512


def check_name(name: str) -> bytes:
    """Return the name as bytes, or raise `InvalidAmountOrName` that says what is wrong with it."""
    if not 1 <= len(name) <= NAME_SIZE_MAX:
        raise InvalidAmountOrName(f"an account name has 1 to {NAME_SIZE_MAX} characters, not {len(name)}: {name!r}")
    if not _is_plain(name):
        raise InvalidAmountOrName(f"an account name is printable ASCII without spaces: {name!r}")
    return name.encode("ascii")


def is_subscription_name(name: str) -> bool:
    """Whether a subscription can have this name: 1 to 64 printable ASCII characters without spaces."""
    return 1 <= len(name) <= SUBSCRIPTION_NAME_SIZE_MAX and _is_plain(name)


def _is_plain(name: str) -> bool:
    """Whether all characters are from "!" to "~": what is printable of ASCII, but for the space."""
    return name.isascii() and name.isprintable() and " " not in name


def currency_word(currency: str) -> int:
    """Pack a currency code (1 to 8 of A-Z, 0-9) into the word that records hold: its bytes, little-endian."""
    if not 1 <= len(currency) <= CURRENCY_SIZE_MAX or not _CURRENCY_CHARACTERS.issuperset(currency):
        raise InvalidAmountOrName(f"a currency is 1 to 8 capital letters and digits, not {currency!r}")
    return int.from_bytes(currency.encode("ascii"), "little")


def currency_code(word: int) -> str:
    """Unpack the word of `currency_word`."""
    return (int(word) & (1 << 64) - 1).to_bytes(8, "little").rstrip(b"\0").decode("ascii", "replace")


def slot_key(name: bytes) -> bytes:
    """The part of a name that places it: the tag between the first braces, if it has text, else all of it."""
    start = name.find(b"{")
    if start >= 0:
        end = name.find(b"}", start + 1)
        if end > start + 1:
            return name[start + 1 : end]
    return name


def account_id(name: str, currency: str) -> bytes:
    """Derive the 16-byte id of the account with this name and currency."""
    encoded = check_name(name)
    word = currency_word(currency).to_bytes(8, "little")
    place = blake3.blake3(slot_key(encoded)).digest(length=2)
    digest = bytearray(blake3.blake3(encoded + b"\0" + word).digest(length=16))
    digest[0] = place[0]
    digest[1] = (place[1] & 0xF0) | (digest[1] & 0x0F)
    return bytes(digest)


def slot_of(identifier: bytes) -> int:
    """The slot (0 to 4095) of an account id: its first 12 bits."""
    return identifier[0] << 4 | identifier[1] >> 4


class IdMaker:
    """Makes UUIDv7 ids (RFC 9562, section 5.7): 48 bits of milliseconds, then 74 random bits.

    Random bytes are drawn from the system 512 ids at a time, since one system call an id would cost more than the
    rest of a transfer. One maker serves one thread, and none is used on both sides of a fork: two that share a pool
    would make the same id twice.
    """

    def __init__(self) -> None:
        self._pool = b""
        self._offset = 0

    def make(self) -> bytes:
        """Return a new 16-byte id."""
        offset = self._offset
        if offset + _RANDOM_SIZE > len(self._pool):
            self._pool = os.urandom(_RANDOM_POOL_SIZE)
            offset = 0
        self._offset = offset + _RANDOM_SIZE
        random = int.from_bytes(self._pool[offset : self._offset], "big")
        milliseconds = time.time_ns() // 1_000_000
        value = milliseconds << 80 | 0x7000_8000_0000_0000_0000 | random & 0x0FFF_3FFF_FFFF_FFFF_FFFF
        return value.to_bytes(16, "big")
