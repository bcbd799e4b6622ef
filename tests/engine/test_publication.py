"""Claim: a published position reaches whoever reads, at once, and one that means nothing counts as none."""

import os
import select
from pathlib import Path

import pytest

from bezant.engine.publication import PUBLISHED_NAME, PUBLISHED_SIZE, Publication, Publisher
from bezant.protocol.errors import StorageError

LOG_ID = 2**61 + 17


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path, LOG_ID)


def test_what_is_published_is_read_at_the_other_end(tmp_path: Path, publisher: Publisher) -> None:
    publication = Publication(tmp_path, LOG_ID)
    assert publication.index == 0
    for index in (1, 2, 7, 2**52):
        publisher.publish(index)
        assert publication.index == index


def test_a_position_never_goes_back(tmp_path: Path, publisher: Publisher) -> None:
    publisher.publish(5)
    publisher.publish(4)
    assert Publication(tmp_path, LOG_ID).index == 5


def test_what_was_published_outlives_the_publisher(tmp_path: Path, publisher: Publisher) -> None:
    publisher.publish(5)
    publisher.close()
    assert Publication(tmp_path, LOG_ID).index == 5


def test_the_next_publisher_begins_with_nothing(tmp_path: Path, publisher: Publisher) -> None:
    publication = Publication(tmp_path, LOG_ID)
    publisher.publish(5)
    publisher.close()
    again = Publisher(tmp_path, LOG_ID)
    assert publication.index == 0
    again.publish(3)
    assert publication.index == 3


def test_a_position_of_another_log_counts_as_none(tmp_path: Path, publisher: Publisher) -> None:
    publisher.publish(5)
    assert Publication(tmp_path, LOG_ID + 1).index == 0


@pytest.mark.parametrize("content", [b"", bytes(PUBLISHED_SIZE), b"\xff" * PUBLISHED_SIZE, b"BZPUBLSH"])
def test_a_file_that_is_none_counts_as_nothing_published(tmp_path: Path, content: bytes) -> None:
    (tmp_path / PUBLISHED_NAME).write_bytes(content)
    assert Publication(tmp_path, LOG_ID).index == 0


def test_a_negative_position_counts_as_none(tmp_path: Path, publisher: Publisher) -> None:
    publisher.close()
    page = bytearray((tmp_path / PUBLISHED_NAME).read_bytes())
    page[16:24] = b"\xff" * 8
    (tmp_path / PUBLISHED_NAME).write_bytes(page)
    assert Publication(tmp_path, LOG_ID).index == 0


def test_a_file_that_comes_later_or_is_made_anew_is_found(tmp_path: Path) -> None:
    publication = Publication(tmp_path, LOG_ID)
    Publisher(tmp_path, LOG_ID).publish(2)
    assert publication.index == 0
    publication.refresh()
    assert publication.index == 2
    (tmp_path / PUBLISHED_NAME).unlink()
    Publisher(tmp_path, LOG_ID).publish(9)
    publication.refresh()
    assert publication.index == 9


@pytest.mark.parametrize("what", ["folder", "link", "pipe"])
def test_nothing_is_published_into_what_is_no_file(tmp_path: Path, what: str) -> None:
    path = tmp_path / PUBLISHED_NAME
    {"folder": path.mkdir, "link": lambda: path.symlink_to(tmp_path / "elsewhere"), "pipe": lambda: os.mkfifo(path)}[
        what
    ]()
    with pytest.raises(StorageError, match="cannot be published"):
        Publisher(tmp_path, LOG_ID)
    assert Publication(tmp_path, LOG_ID).index == 0
    assert not (tmp_path / "elsewhere").exists()


def test_only_a_reader_that_waits_is_woken_up_and_once(tmp_path: Path, publisher: Publisher) -> None:
    publication = Publication(tmp_path, LOG_ID)
    publisher.wake_descriptor = wake = os.eventfd(0, os.EFD_NONBLOCK)

    def woken() -> int:
        return os.eventfd_read(wake) if select.select([wake], [], [], 0)[0] else 0

    publisher.publish(1)
    assert woken() == 0
    publication.announce_waiting()
    publisher.publish(2)
    publisher.publish(3)
    assert woken() == 1
    publisher.publish(4)
    assert woken() == 0
    publication.announce_waiting()
    publisher.publish(4)  # nothing new
    assert woken() == 0
    publisher.publish(5)
    assert woken() == 1
    os.close(wake)


def test_a_reader_that_may_not_write_can_read(tmp_path: Path, publisher: Publisher, monkeypatch) -> None:
    publisher.publish(5)
    opened = os.open

    def open_to_read(path: object, flags: int, *others: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError("read-only file system")
        return opened(path, flags, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", open_to_read)
    publication = Publication(tmp_path, LOG_ID)
    publication.announce_waiting()
    assert publication.index == 5
