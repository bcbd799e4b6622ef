"""Keeps the projections of a reader: opens them, feeds them the log, and gives what answers questions."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bezant.engine.following import Follower
from bezant.engine.log.entry import Entry, public_log_id
from bezant.engine.log.resume import ResumePoint
from bezant.engine.log.storage import Directory
from bezant.engine.projections.files import FREE_SPACE_FLOOR, FREE_SPACE_FOR_SEALS
from bezant.engine.projections.projections import Projections, ProjectionSettings, open_projections
from bezant.engine.projections.queries import Questions
from bezant.engine.projections.warm import warm_projections
from bezant.net.reader.projecting import read_taken
from bezant.protocol.errors import LedgerError, StorageError

FOLDER: Final = "projections"
"""Name of their folder, within that of the reader."""
RESUME_POINT_EVENTS: Final = 1 << 22
"""Events between two places that are remembered for a start: each takes some memory to write down."""

_log = logging.getLogger("bezant")


class HistoryProjection:
    """The projections as one of what a reader keeps (`bezant.net.reader.projecting.Projection`)."""

    def __init__(self, folder: Path, shard: int, log_id: int, settings: ProjectionSettings | None = None) -> None:
        """`folder` is that of the reader; nothing in it is touched before `start`."""
        self.shard = shard
        self.public_id = public_log_id(log_id)
        self._directory = Directory(folder / FOLDER)
        self._settings = settings
        self._projections: Projections | None = None
        self._questions: Questions | None = None
        self._follower: Follower | None = None
        self._is_level = False
        self._offered_sequence = 0
        self._applied_index = 0

    # ---- the thread that feeds ----

    def start(self) -> ResumePoint | None:
        """Open them; entries are needed from the place that is returned on. What is damaged is said, and made anew."""
        self._projections = open_projections(
            self._directory,
            log_id=self.public_id,
            shard=self.shard,
            settings=self._settings,
            on_notice=lambda notice: _log.warning("bezant: %s", notice),
        )
        point = self._projections.resume_point
        self._applied_index = 0 if point is None else point.index
        return point

    def begin(self, follower: Follower) -> None:
        """The log is open: from now on there is what to ask."""
        warm_projections()
        self._follower = follower
        self._questions = Questions(self._opened, read_taken(follower), self.shard)

    def take_in(self, entries: Sequence[Entry]) -> None:
        """Take entries in. Raises `CorruptLog`, `StorageError`."""
        projections = self._opened
        for entry in entries:
            projections.apply(entry)
        if entries:
            self._applied_index = entries[-1].header.index
        if projections.sequence >= self._offered_sequence + RESUME_POINT_EVENTS:
            self._offer_resume_point()

    def find_obstacle(self) -> str:
        """Why nothing more is to be taken in for now, in words; "" if nothing is against it."""
        room_bytes = FREE_SPACE_FLOOR + FREE_SPACE_FOR_SEALS
        try:
            if self._directory.free_bytes() >= room_bytes:
                return ""
        except FileNotFoundError:
            return ""  # Somebody has removed the folder: what is written next finds that out, and all is made again.
        return (
            f"{self._directory.path}: less than {room_bytes >> 20} MiB are free on the disk; what can be asked about "
            "the past stays behind until there is more room"
        )

    def rest(self) -> None:
        """Everything published has been taken in."""
        if not self._is_level:
            self._is_level = True
            _log.info("bezant: the history is known up to event %d", self._opened.sequence)
            self._offer_resume_point()

    def settle(self) -> None:
        """Wait until all files that are due are written and merged. Raises `StorageError`."""
        self._opened.settle()

    def close(self) -> None:
        """Let go of everything."""
        if self._projections is not None:
            self._projections.close()

    def _offer_resume_point(self) -> None:
        if self._follower is not None:
            self._offered_sequence = self._opened.sequence
            self._opened.offer_resume_point(self._follower.log.resume_point())

    @property
    def _opened(self) -> Projections:
        if self._projections is None:
            raise LedgerError("projections are used before they were opened")
        return self._projections

    # ---- any thread ----

    @property
    def applied_index(self) -> int:
        """The last entry that was taken in."""
        return self._applied_index

    @property
    def questions(self) -> Questions:
        """Answers questions. Raises `StorageError` while there is nothing to ask yet."""
        if self._questions is None:
            raise StorageError("the history is being opened; try again later")
        return self._questions

    def check_level(self) -> None:
        """Raise `StorageError` while the history is only being read, up to where it was when the reader started."""
        if not self._is_level:
            raise StorageError(
                f"the history is being read and is known up to event {self._opened.sequence} so far; try again later"
            )
