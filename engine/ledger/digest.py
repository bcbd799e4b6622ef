"""One number for all of a ledger's state: the same history gives the same everywhere."""

from collections.abc import Callable
from typing import Final

import blake3
import msgspec

from bezant.engine.ledger.image import LedgerImage
from bezant.protocol.records import Records

_ACCOUNTS: Final = 8192
"""Accounts that are listed at a time."""


def digest_of(image: LedgerImage, list_accounts: Callable[[int, int], Records]) -> str:
    """See `Ledger.digest`; `list_accounts` is that of the ledger whose image this is."""
    hasher = blake3.blake3()
    hasher.update("".join([f"{code}:{decimals};" for code, decimals in image.currencies.items()]).encode())
    hasher.update(f"{image.rules_version}:{image.next_sequence}:{image.last_timestamp_ns};".encode())
    for cursor in range(0, len(image.rows), _ACCOUNTS):
        hasher.update(list_accounts(cursor, _ACCOUNTS).tobytes())
    hasher.update(image.holds.tobytes())
    if len(image.tries) or len(image.unsettled):  # Without, as it was before there were any.
        hasher.update(f"tries:{len(image.tries)};".encode())
        hasher.update(image.tries.tobytes())
        hasher.update(image.unsettled.tobytes())
    if len(image.metadata):
        hasher.update(b"metadata")
        hasher.update(image.metadata.tobytes())
    hasher.update("".join(f"{name}:{at};" for name, at in sorted(image.positions.items())).encode())
    if image.moves is not None:
        hasher.update(b"moves" + msgspec.msgpack.encode(image.moves))
    if image.tokens:
        hasher.update(b"tokens" + msgspec.msgpack.encode(image.tokens) + image.tokens_forgotten)
    return hasher.hexdigest()
