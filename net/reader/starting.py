"""Where a reader begins that needs nothing of the past but the currencies of accounts: at the newest checkpoint."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from bezant.engine.checkpoints.file import read_checkpoint
from bezant.engine.checkpoints.folder import CheckpointFolder, checkpoint_name
from bezant.engine.following import Follower
from bezant.engine.log.resume import ResumePoint
from bezant.engine.log.storage import Directory
from bezant.protocol.access import Token
from bezant.protocol.errors import StorageError
from bezant.protocol.names import currency_word
from bezant.protocol.records import Words


class Start(NamedTuple):
    """The entry to begin behind (None: at the first), and the accounts up to there: ids of shape (count, 2), and the
    word of the currency of each; and the positions that had names; and the tokens of clients."""

    point: ResumePoint | None
    ids: Words
    currencies: Words
    positions: Mapping[str, int] = MappingProxyType({})
    tokens: tuple[Token, ...] = ()


def find_start(directory: Directory, follower: Follower) -> Start:
    """The newest start that is whole. On any thread: it reads and checks a file that may be large.

    Which checkpoints there are may change while this looks; one that is gone, damaged or ahead of what is published is
    passed over.
    """
    folder = CheckpointFolder(directory)
    for index in reversed(folder.indexes()):
        try:
            checkpoint = read_checkpoint(folder.directory, checkpoint_name(index))
        except (StorageError, OSError):
            continue
        manifest, image = checkpoint.manifest, checkpoint.image
        point = manifest.point
        if (manifest.shard, point.log_id) == (follower.shard, follower.log_id) and index <= follower.published_index:
            words: Words = np.array([currency_word(code) for code in image.currencies], np.int64)
            rows = image.rows
            ids = np.stack([rows["id_head"], rows["id_tail"]], axis=1)
            of_accounts = words[rows["currency_number"]] if len(rows) else np.zeros(0, np.int64)
            return Start(point, ids, of_accounts, image.positions, image.tokens)
    return Start(None, np.zeros((0, 2), np.int64), np.zeros(0, np.int64))
