"""Where snapshots are kept: a local folder, written with aiofiles, or an address that fsspec knows (`s3://`, `hdfs://`).

A file is there whole or not at all. In a local folder, and wherever else fsspec can rename, it is written under another
name first; an object store shows an object when all of it has come. Nothing that is there is ever written over.
"""

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import aiofiles
import aiofiles.os
import fsspec
from fsspec.spec import AbstractBufferedFile

from bezant.protocol.errors import StorageError, UsageError

CHUNK_SIZE_BYTES: Final = 4 << 20
"""Bytes that are read or written at a time; as many are in memory twice."""
OPERATION_TIMEOUT_S: Final = 120.0
"""Seconds that one step (to open, to write or read a chunk, to close) may take at a remote target."""
UNFINISHED_SUFFIX: Final = ".unfinished"
_OBJECT_STORES: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "adl", "oci", "r2"})
"""Protocols whose objects appear when they are complete, and for which a rename is a copy."""
_S3: Final = frozenset({"s3", "s3a"})
_S3_SETTINGS: Final = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 3}}
"""Of the client: seconds, and attempts."""

_Value = TypeVar("_Value")


class Store(ABC):
    """Files by relative names; all methods raise `StorageError` if the target does not do it."""

    def __init__(self, address: str) -> None:
        self.address = address

    @abstractmethod
    async def write(self, name: str, chunks: Iterable[bytes]) -> None:
        """Make a file of chunks: durable, as far as the target can say so, when this returns."""

    @abstractmethod
    def read(self, name: str) -> AsyncIterator[bytes]:
        """The chunks of a file. Raises `StorageError` if it is not there."""

    @abstractmethod
    async def names(self, folder: str) -> list[str]:
        """Names of the files in a folder, sorted; none if it is not there."""

    @abstractmethod
    async def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder, sorted; none if it is not there."""

    @abstractmethod
    async def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is not there."""

    @abstractmethod
    async def remove(self, name: str) -> None:
        """Remove a file; one that is not there is none to remove."""


def open_store(target: str) -> Store:
    """The store at a path or a URL. Raises `UsageError` for a URL that nothing here knows."""
    if "://" not in target:
        return LocalStore(Path(target))
    if target.startswith("file://"):
        return LocalStore(Path(target.removeprefix("file://")))
    return RemoteStore(target)


class LocalStore(Store):
    """A folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._folder = folder

    async def write(self, name: str, chunks: Iterable[bytes]) -> None:
        """As `Store.write`; synced, and the folder, too."""
        path = self._folder / name
        made = path.with_name(f"{path.name}{UNFINISHED_SUFFIX}")
        try:
            await aiofiles.os.makedirs(path.parent, exist_ok=True)
            try:
                async with aiofiles.open(made, "wb") as file:
                    for chunk in chunks:
                        await file.write(chunk)
                    await file.flush()
                    await asyncio.to_thread(os.fsync, file.fileno())
                await aiofiles.os.rename(made, path)
                await asyncio.to_thread(_sync_folders, path.parent, self._folder.parent)
            except BaseException:
                with suppress(FileNotFoundError):
                    made.unlink()
                raise
        except OSError as error:
            raise _failed(self.address, name, error) from error

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """As `Store.read`."""
        try:
            async with aiofiles.open(self._folder / name, "rb") as file:
                while chunk := await file.read(CHUNK_SIZE_BYTES):
                    yield chunk
        except OSError as error:
            raise _failed(self.address, name, error) from error

    async def names(self, folder: str) -> list[str]:
        """As `Store.names`."""
        return await self._entries(folder, os.DirEntry.is_file)

    async def folders(self, folder: str) -> list[str]:
        """As `Store.folders`."""
        return await self._entries(folder, os.DirEntry.is_dir)

    async def _entries(self, folder: str, is_wanted: Callable[["os.DirEntry[str]"], bool]) -> list[str]:
        try:
            found = await aiofiles.os.scandir(self._folder / folder)
            with found:
                return sorted(entry.name for entry in found if is_wanted(entry))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _failed(self.address, folder, error) from error

    async def size(self, name: str) -> int | None:
        """As `Store.size`."""
        try:
            return int((await aiofiles.os.stat(self._folder / name)).st_size)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed(self.address, name, error) from error

    async def remove(self, name: str) -> None:
        """As `Store.remove`; synced."""
        path = self._folder / name
        try:
            await aiofiles.os.unlink(path)
            await asyncio.to_thread(_sync_folders, path.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failed(self.address, name, error) from error


class RemoteStore(Store):
    """A target of fsspec, each step of which is done in a thread and has a bound."""

    def __init__(self, address: str) -> None:
        """Raises `UsageError`."""
        super().__init__(address)
        protocol = address.partition("://")[0]
        self._renames = protocol not in _OBJECT_STORES
        settings: dict[str, Any] = {"config_kwargs": _S3_SETTINGS} if protocol in _S3 else {}
        # What was listed before somebody else added to it must not count.
        settings |= {"use_listings_cache": False, "skip_instance_cache": True}
        try:
            self._files, self._root = fsspec.core.url_to_fs(address, **settings)
        except ImportError as error:
            raise UsageError(f"{address}: this needs a library that is not installed: {error}") from error
        except ValueError as error:
            raise UsageError(f"{address}: {error}") from error
        except Exception as error:  # Whatever a library of that protocol raises: they have nothing in common.
            raise _failed(address, "", error) from error

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    async def _do(self, name: str, action: Callable[..., _Value], *arguments: Any) -> _Value:
        """One step. `FileNotFoundError` stays; everything else is a `StorageError`."""
        try:
            async with asyncio.timeout(OPERATION_TIMEOUT_S):
                return await asyncio.to_thread(action, *arguments)
        except (FileNotFoundError, StorageError):
            raise
        except Exception as error:
            raise _failed(self.address, name, error) from error

    async def write(self, name: str, chunks: Iterable[bytes]) -> None:
        """As `Store.write`."""
        path = self._path(name)
        made = f"{path}{UNFINISHED_SUFFIX}" if self._renames else path
        try:
            await self._do(name, self._make_folder, path.rpartition("/")[0])
            file = await self._do(name, self._files.open, made, "wb")
            try:
                for chunk in chunks:
                    await self._do(name, file.write, chunk)
            except BaseException:
                await self._do(name, self._abandon, file, made)
                raise
            await self._do(name, file.close)
            if self._renames:
                await self._do(name, self._files.mv, made, path)
        except FileNotFoundError as error:
            raise _failed(self.address, name, error) from error

    def _make_folder(self, path: str) -> None:
        if self._renames:
            self._files.makedirs(path, exist_ok=True)

    def _abandon(self, file: Any, made: str) -> None:
        """Leave nothing of a file that is not complete. To close an object would be to complete it."""
        if isinstance(file, AbstractBufferedFile):
            file.discard()
            file.closed = True
        else:
            file.close()
        if self._renames and self._files.exists(made):
            self._files.rm(made)

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """As `Store.read`."""
        try:
            file = await self._do(name, self._files.open, self._path(name), "rb")
            try:
                while chunk := await self._do(name, file.read, CHUNK_SIZE_BYTES):
                    yield chunk
            finally:
                await self._do(name, file.close)
        except FileNotFoundError as error:
            raise _failed(self.address, name, error) from error

    async def names(self, folder: str) -> list[str]:
        """As `Store.names`."""
        try:
            found = await self._do(folder, self._files.ls, self._path(folder), False)
        except FileNotFoundError:
            return []
        return sorted(name for path in found if (name := path.rpartition("/")[2]))

    async def folders(self, folder: str) -> list[str]:
        """As `Store.folders`."""
        try:
            found = await self._do(folder, self._files.ls, self._path(folder), True)
        except FileNotFoundError:
            return []
        paths = [entry["name"].rstrip("/") for entry in found if entry["type"] == "directory"]
        return sorted(path.rpartition("/")[2] for path in paths)

    async def remove(self, name: str) -> None:
        """As `Store.remove`."""
        with suppress(FileNotFoundError):
            await self._do(name, self._files.rm_file, self._path(name))

    async def size(self, name: str) -> int | None:
        """As `Store.size`."""
        try:
            size_bytes = await self._do(name, self._files.size, self._path(name))
        except FileNotFoundError:
            return None
        return None if size_bytes is None else int(size_bytes)


def _failed(address: str, name: str, error: Exception) -> StorageError:
    why = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return StorageError(f"{address}{'/' if name else ''}{name}: the target does not do it: {why}")


def _sync_folders(*folders: Path) -> None:
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
