"""`python -m bezant.net.reader.child`: a reader as the child of its node, to which it gives way from the start."""

import gc
import os
import signal
import sys
from typing import Final

NICENESS: Final = 5
"""A child gives way to its node when there is not processor time for both, and comes before the one that makes
checkpoints."""
_STANDARD_OUTPUT: Final = 1
_STANDARD_ERROR: Final = 2


def main() -> int:
    """Load what a reader is made of, and be one; returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A Ctrl-C at the terminal is for the node, which then ends this.
    os.nice(NICENESS)
    os.dup2(_STANDARD_ERROR, _STANDARD_OUTPUT)
    # What comes with modules stays: the collector would look through it again and again while they are loaded.
    gc.disable()
    from bezant.net.reader.process import run_child

    gc.freeze()
    gc.enable()
    return run_child()


if __name__ == "__main__":
    sys.exit(main())
