"""The key that a node signs tree heads with: 32 random bytes in a file of the data folder that only its owner may read.

It is made when the first head is signed. Whoever has it can sign for this node; who loses it has another node's name
from then on, and receipts that were given before are checked with the old public key.
"""

import os
import stat
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from bezant.protocol.errors import StorageError
from bezant.protocol.receipts import KEY_SIZE, TreeHead, head_bytes

KEY_NAME: Final = "receipt-key"
KEY_MODE: Final = 0o600
_MAGIC: Final = b"BZRCKEY\1"


class SigningKey:
    """Signs tree heads."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, log_id: bytes, size: int, timestamp_ns: int, root: bytes) -> TreeHead:
        """A signed head."""
        signature = self._private.sign(head_bytes(log_id, size, timestamp_ns, root))
        return TreeHead(log_id, size, timestamp_ns, root, self.public, signature)


def open_key(data_directory: Path) -> SigningKey:
    """The key of a data folder, made if it has none yet.

    Raises `StorageError` for a file that is no key, or that others may read.
    """
    path = data_directory / KEY_NAME
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    private = Ed25519PrivateKey.generate()
    secret = private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    made = path.with_name(f"{KEY_NAME}.{os.getpid()}.unfinished")
    try:
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, KEY_MODE)
        try:
            os.write(descriptor, _MAGIC + secret)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(made, path)
        except FileExistsError:
            pass  # Another process was faster, and its key is the node's.
        finally:
            made.unlink()
        _sync(data_directory)
        return _read(path)
    except OSError as error:
        raise StorageError(f"{path}: the key of receipts cannot be made: {error.strerror}") from error


def _read(path: Path) -> SigningKey:
    """Raises FileNotFoundError, `StorageError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"{path}: the key of receipts cannot be read: {error.strerror}") from error
    try:
        mode = os.fstat(descriptor).st_mode
        data = os.read(descriptor, len(_MAGIC) + KEY_SIZE + 1)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(mode) or data[: len(_MAGIC)] != _MAGIC or len(data) != len(_MAGIC) + KEY_SIZE:
        raise StorageError(f"{path} is not the key of receipts: move it away, and another key is made")
    if stat.S_IMODE(mode) & 0o077:
        raise StorageError(f"{path} can be read by others: chmod 600, or move it away, and another key is made")
    return SigningKey(Ed25519PrivateKey.from_private_bytes(data[len(_MAGIC) :]))


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
