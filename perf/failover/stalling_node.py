"""``python -m bezant.perf.failover.stalling_node serve --data DIR``: a node whose disk stops while a file is there.

The file is ``DIR.stalled``. While it exists no write and no sync of the log, the vote or the checkpoints returns, as if
the disk did not answer: what calls them waits, be it the thread that syncs or the loop. It takes no rights, which a
device that can be suspended would.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from bezant.engine.log.storage import LogFile

POLL_S: Final = 0.002

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def stalled_file(data: Path) -> Path:
    """The file that stops the disk of the node with this data folder."""
    return data.with_name(f"{data.name}.stalled")


def stall_writes(flag: Path) -> None:
    """Have every write and sync of this process wait while the file is there."""

    def waiting(call: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
        def run(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
            while flag.exists():
                time.sleep(POLL_S)
            return call(*args, **kwargs)

        return run

    for name in ("write", "write_durably", "sync"):
        setattr(LogFile, name, waiting(getattr(LogFile, name)))


def main() -> int:
    """Run the command line with a disk that can be stopped."""
    stall_writes(stalled_file(Path(sys.argv[sys.argv.index("--data") + 1])))
    from bezant.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
