"""Claim: whatever keeps the files, one that is there is whole, and a target that cannot be reached is said to be so."""

import json
import os
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bezant.engine.verify import verify
from bezant.net.archive.store import CHUNK_SIZE_BYTES, Store, open_store
from bezant.protocol.errors import StorageError, UsageError

from .conftest import Folder

CHUNKS = [b"a" * 1000, b"b" * CHUNK_SIZE_BYTES, b"c"]


@pytest.fixture(params=["folder", "file://", "memory://"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory://":
        return open_store(f"memory://{uuid.uuid4().hex}")
    prefix = "" if request.param == "folder" else request.param
    return open_store(f"{prefix}{tmp_path / 'kept'}")


async def read(store: Store, name: str) -> bytes:
    return b"".join([part async for part in store.read(name)])


async def test_what_was_written_is_read_back(store: Store) -> None:
    assert await store.names("files") == []
    assert await store.size("files/one") is None
    await store.write("files/one", CHUNKS)
    assert await read(store, "files/one") == b"".join(CHUNKS)
    assert await store.size("files/one") == len(b"".join(CHUNKS))
    assert await store.names("files") == ["one"]


async def test_what_was_removed_is_gone(store: Store) -> None:
    assert await store.folders("segments") == []
    for name in ("segments/b/one", "segments/a/one", "segments/two"):
        await store.write(name, CHUNKS[:1])
    assert await store.folders("segments") == ["a", "b"]
    await store.remove("segments/b/one")
    await store.remove("segments/b/one")
    assert await store.names("segments/b") == []
    assert await store.size("segments/b/one") is None
    assert await read(store, "segments/a/one") == CHUNKS[0]


async def test_a_file_that_is_not_there_is_said_to_be_missing(store: Store) -> None:
    with pytest.raises(StorageError, match="files/none"):
        await read(store, "files/none")


async def test_a_write_that_fails_leaves_no_file(store: Store) -> None:
    def broken() -> Iterator[bytes]:
        yield b"one"
        raise StorageError("the source has become shorter")

    with pytest.raises(StorageError, match="shorter"):
        await store.write("files/one", broken())
    assert await store.size("files/one") is None


def test_a_target_that_nothing_knows_is_refused() -> None:
    with pytest.raises(UsageError, match="nowhere"):
        open_store("nowhere://a/b")


async def test_a_folder_that_cannot_be_written_to_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match="the target does not do it"):
        await open_store(str(tmp_path / "file")).write("files/one", CHUNKS)


# ---- S3, as a process of its own speaks it ----


def run(words: list[str], address: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        **more,
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-m", "bezant", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def bucket(s3_address: str) -> str:
    """A bucket that nobody else has."""
    import http.client

    name = f"bezant-{uuid.uuid4().hex}"
    connection = http.client.HTTPConnection(s3_address.removeprefix("http://"), timeout=30)
    connection.request("PUT", f"/{name}", headers={"Authorization": "AWS testing:testing"})
    assert connection.getresponse().status == 200
    connection.close()
    return name


def test_a_snapshot_goes_to_s3_and_comes_back(folder: Folder, s3_address: str, bucket: str, tmp_path: Path) -> None:
    target = f"s3://{bucket}/books"
    created = run(["snapshot", "create", target, "--data", str(folder.path)], s3_address)
    assert created.returncode == 0, created.stderr
    assert folder.state_digest in created.stdout
    listed = run(["snapshot", "list", target], s3_address)
    assert folder.state_digest in listed.stdout
    restored = tmp_path / "restored"
    words = ["snapshot", "restore", target, "--data", str(restored), "--free-space-floor-mib", "1"]
    completed = run(words, s3_address)
    assert completed.returncode == 0, completed.stderr
    assert verify(restored).state_digest == folder.state_digest
    assert run(["archive", "push", target, "--data", str(folder.path)], s3_address).returncode == 0
    (name,) = re.findall(r"^\d{10}-[0-9a-f]{32}", listed.stdout, re.MULTILINE)
    deleted = run(["snapshot", "delete", target, "--snapshot", name, "--json"], s3_address)
    assert deleted.returncode == 0, deleted.stderr
    assert json.loads(deleted.stdout)["files"] >= 1
    kept = run(["archive", "push", target, "--data", str(folder.path), "--replace", "--json"], s3_address)
    assert {**json.loads(kept.stdout), "there": 0} == {
        "written": 0, "there": 0, "written_bytes": 0, "removed": 0, "removed_bytes": 0,
    }  # fmt: skip


def test_a_bucket_that_is_not_there_is_one_line(folder: Folder, s3_address: str, tmp_path: Path) -> None:
    completed = run(["snapshot", "create", "s3://no-such-bucket/books", "--data", str(folder.path)], s3_address)
    assert completed.returncode == 1
    assert completed.stderr.count("\n") == 1, completed.stderr
    assert "s3://no-such-bucket/books" in completed.stderr


def test_a_target_that_cannot_be_reached_is_one_line(folder: Folder) -> None:
    with socket.socket() as nobody:  # bound, and not listening: every connection is refused
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        words = ["snapshot", "create", "s3://bucket/books", "--data", str(folder.path)]
        completed = run(words, address, AWS_MAX_ATTEMPTS="2")  # not five, with pauses that grow
    assert completed.returncode == 1
    assert completed.stderr.count("\n") == 1, completed.stderr
    assert "the target does not do it" in completed.stderr
