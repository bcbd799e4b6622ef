"""What a start does before and after it opens a data folder, for a node and for an engine within another process.

What may fail soon is tried before what takes long: compiling can take half a minute, and a folder that another process
holds should be told at once.
"""

import logging
from pathlib import Path

from bezant.engine.compiled import COMPILED, cache_directory
from bezant.engine.log.storage import FolderLock
from bezant.engine.replica import Replica, shard_directory
from bezant.net.logs import about
from bezant.net.server.warm import warm_kernels

_log = logging.getLogger("bezant")


def prepare_start(data_directory: Path, shard: int = 0) -> None:
    """Make sure that the folder can be had, then compile what is not compiled yet.

    Raises `DataFolderInUse`, `StorageError`.
    """
    # The log's folder before the lock: a lock without a log is what the loss of a whole history looks like.
    shard_directory(data_directory, shard).create()
    FolderLock(data_directory).release()
    if COMPILED and not Path(cache_directory()).is_dir():
        _log.warning("bezant: compiling the kernels, once (about 20 s)", extra=about("compiling"))
    warm_kernels()


def tell_findings(replica: Replica) -> None:
    """Warn of what the start found in the folder and went on in spite of."""
    report = replica.log.recovery
    if report.torn_bytes:
        _log.warning(
            "bezant: the last write before a crash was torn: %d bytes that were never acknowledged are set aside in %s",
            report.torn_bytes,
            report.torn_file,
        )
    index = replica.start_index
    instead = f"the checkpoint behind entry {index} and the entries after it" if index else "the whole history"
    for damage in replica.checkpoints.damaged:
        _log.warning(
            "bezant: a checkpoint is damaged, and the history is whole: nothing is lost, and the state was made from "
            "%s instead. %s",
            instead,
            damage,
        )
