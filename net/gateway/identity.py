"""Which 16-byte id a text stands for: a transaction id, a hold's id, an Idempotency-Key.

A UUID, in its usual form or as 32 hexadecimal digits, is the id itself. Any other text stands for the first 16 bytes of
its BLAKE3 in UTF-8, in the mode that derives keys, with the context below; so any client can say which id it has used.
"""

import uuid
from typing import Final

import blake3

from bezant.net.gateway.problems import GatewayProblem, refusal

ID_CONTEXT: Final = "bezant gateway 1: the id that a transaction id stands for"
TEXT_SIZE_MAX: Final = 255
"""Characters of such a text."""
_ID_SIZE: Final = 16
_HEXADECIMAL_SIZE: Final = 32
_UUID_SIZE: Final = 36


def id_of_text(text: str) -> bytes:
    """The id that a text stands for."""
    size = len(text)
    if size == _HEXADECIMAL_SIZE or (
        size == _UUID_SIZE and text[8] == text[13] == text[18] == text[23] == "-" and text.count("-") == 4
    ):
        try:
            identifier = bytes.fromhex(text.replace("-", ""))
        except ValueError:
            return _hashed(text)
        # Spaces are skipped by `fromhex`, and then bytes are missing.
        return identifier if len(identifier) == _ID_SIZE else _hashed(text)
    return _hashed(text)


def text_of_id(identifier: bytes) -> str:
    """An id as a UUID."""
    return str(uuid.UUID(bytes=identifier))


def text_of_request(given: str | None, key: str | None) -> str | None:
    """The text that names a command, of the one in its body and the one in its Idempotency-Key; None without either.

    The key may stand in quotes, as a string of structured fields (RFC 9651) does. Raises `ProblemRaised` if the
    two stand for different ids, or if the key is none.
    """
    if key is None:
        return given
    text = key[1:-1] if len(key) > 2 and key[0] == key[-1] == '"' else key
    if not 1 <= len(text) <= TEXT_SIZE_MAX:
        raise refusal(GatewayProblem.REQUEST_INVALID, f"an Idempotency-Key has 1 to {TEXT_SIZE_MAX} characters")
    if given is not None and id_of_text(given) != id_of_text(text):
        raise refusal(
            GatewayProblem.REQUEST_INVALID, "the Idempotency-Key and the id in the body are not the same: give one"
        )
    return text if given is None else given


def _hashed(text: str) -> bytes:
    # Lone surrogates come in by JSON escapes, and are no reason to fail.
    encoded = text.encode("utf-8", "surrogatepass")
    return blake3.blake3(encoded, derive_key_context=ID_CONTEXT).digest(length=_ID_SIZE)
