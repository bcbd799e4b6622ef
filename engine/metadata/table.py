"""Which entry has the metadata of each subject: a part of the state of a ledger."""

from typing import Final

import numpy as np

from bezant.protocol.metadata import SUBJECT_SIZE
from bezant.protocol.records import Records

SUBJECT: Final = np.dtype([("index", "<i8"), ("subject_kind", "<i8"), ("subject", f"V{SUBJECT_SIZE}")])
"""A subject that has metadata, and the index of the entry that has it."""
NO_SUBJECTS: Final[Records] = np.zeros(0, SUBJECT)


class MetadataTable:
    """See the module. Some 200 bytes of memory for each subject."""

    def __init__(self) -> None:
        self._indexes: dict[tuple[int, bytes], int] = {}

    def __len__(self) -> int:
        """How many subjects have metadata."""
        return len(self._indexes)

    def index_of(self, subject_kind: int, subject: bytes) -> int:
        """Index of the entry that has the metadata of a subject; 0 if it has none."""
        return self._indexes.get((subject_kind, subject), 0)

    def note(self, subject_kind: int, subject: bytes, index: int) -> None:
        """This entry has it now; 0: it has none any more."""
        if index:
            self._indexes[subject_kind, subject] = index
        else:
            self._indexes.pop((subject_kind, subject), None)

    def records(self) -> Records:
        """SUBJECT records, in the order of the entries."""
        rows = sorted((index, kind, subject) for (kind, subject), index in self._indexes.items())
        return np.array(rows, SUBJECT) if rows else NO_SUBJECTS

    def restore(self, records: Records) -> None:
        """Know what such records say, and nothing else."""
        self._indexes = {
            (int(record["subject_kind"]), record["subject"].tobytes()): int(record["index"]) for record in records
        }
