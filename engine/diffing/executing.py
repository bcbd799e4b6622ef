"""Executes a history under whatever version of Bezant this interpreter has, and tells what comes out, entry by entry.

Run as ``python -c SOURCE DATA``: it stands by itself, because another version lacks this file. Lines of JSON leave on
the standard output: who this is, then of each entry its index, the sequence of its first event and a digest of the
events that executing it gave; at the end that of the state. After WINDOW entries it waits for a line: "" to go on, or
the index of one of them, whose events it then shows; after that it ends.
"""

import hashlib
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

WINDOW: Final = 256
"""Entries after which it waits; their events are in memory."""
_WORDS_OF_COMMAND: Final = 16


def tell(**facts: Any) -> None:
    """Write one line."""
    told.write(json.dumps(facts) + "\n")
    told.flush()


def execute(ledger: Any, entry: Any) -> bytes:
    """The events (bytes) that an entry gives when its commands are executed again; none if it has no commands."""
    import numpy as np

    from bezant.engine.ledger.checks import EXPIRE
    from bezant.engine.replay import replay_entry
    from bezant.protocol.kinds import EntryKind
    from bezant.protocol.records import COMMAND, EVENT

    if entry.header.kind != EntryKind.EVENTS:
        replay_entry(ledger, entry)
        return b""
    recorded = np.frombuffer(entry.body, EVENT)
    asked = recorded[recorded["kind"] != EXPIRE]
    # Of a size that is said, not found out: an entry may have nothing but holds that expired.
    size = EVENT.itemsize // 8
    words = np.ascontiguousarray(asked).view(np.int64).reshape(len(asked), size)[:, :_WORDS_OF_COMMAND].copy()
    words[:, _WORDS_OF_COMMAND - 1] = 0
    commands = words.view(COMMAND).reshape(len(asked))
    return bytes(ledger.execute(commands, entry.header.timestamp_ns).events.tobytes())


def shard_of(data: Path) -> int:
    """The shard whose log a data folder has, by the name of its folder: an older version may know no other way."""
    return next((int(path.name.removeprefix("shard-")) for path in data.glob("shard-[0-9]*")), 0)


def make_ledger(log: Any, shard: int) -> Any:
    """A ledger with room for whatever this history may have."""
    from bezant.engine.ledger.ledger import Ledger

    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    events = max(log.count_events_at_most(), 1)
    rows = max(min(events, memory_bytes // 256), 1)
    return Ledger(
        shard=shard,
        accounts_max=rows,
        holds_max=rows,
        ids_capacity_initial=1 << (min(2 * events, 1 << 26).bit_length()),
        fetch_events=log.read_events,
    )


def wait(window: dict[int, bytes]) -> bool:
    """Wait for word; show the events of an entry if it is for one, and say whether to go on."""
    word = sys.stdin.readline().strip()
    if word:
        tell(shown=int(word), events=window.get(int(word), b"").hex())
    return not word


def run(data: Path) -> None:
    """Execute the whole history."""
    from bezant.engine.log.log import open_log
    from bezant.engine.replica import shard_directory

    shard = shard_of(data)
    log = open_log(shard_directory(data, shard), shard=shard, writable=False)
    ledger = make_ledger(log, shard)
    window: dict[int, bytes] = {}
    for entry in log.open():
        header = entry.header
        try:
            events = execute(ledger, entry)
        except Exception as error:
            tell(index=header.index, first_sequence=header.first_sequence, error=f"{type(error).__name__}: {error}")
            wait(window)
            return
        window[header.index] = events
        digest = hashlib.blake2b(events, digest_size=16).hexdigest()
        tell(index=header.index, first_sequence=header.first_sequence, count=header.count, digest=digest)
        if len(window) == WINDOW:
            if not wait(window):
                return
            window.clear()
    tell(index=0, first_sequence=0, count=0, digest=ledger.digest())
    wait(window)


if __name__ == "__main__":
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        from bezant.engine.compiled import kernel_digest

        tell(version=version("bezant"), kernel_digest=kernel_digest())
        run(Path(sys.argv[1]))
    except Exception as error:
        tell(failed=f"{type(error).__name__}: {error}")
