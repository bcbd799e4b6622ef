"""`python -m bezant` is the command line."""

import gc
import sys

from bezant.cli.loading import begin_process
from bezant.cli.main import main


def run() -> int:
    """The command line in a process of its own, which ends with it; returns the exit status."""
    begin_process()
    status = main()
    # All that there is ends now: to look through it for what could be freed takes a sixth of the time of a command.
    gc.freeze()
    return status


if __name__ == "__main__":
    sys.exit(run())
