"""How a process of our own loads what it is made of.

For processes that are ours from their first line on, a command or a child of a node; an engine or a client within
somebody else's process leaves all of this alone.
"""

import faulthandler
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_is_ours = False


def begin_process() -> None:
    """Note that this process is ours. To be called before NumPy is loaded.

    NumPy comes with linear algebra, of which nothing here makes use, and that starts a thread for every other
    processor, each of which spins for 45 ms before it sleeps. It is told to do without; children inherit it.

    And they say where they were when a signal of the system ends them: SIGBUS does when somebody shortens a file that
    is mapped, or its disk cannot read a page.
    """
    global _is_ours
    _is_ours = True
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if sys.stderr is not None:
        faulthandler.enable()
        os.environ.setdefault("PYTHONFAULTHANDLER", "1")


@contextmanager
def loading() -> Iterator[None]:
    """Load modules in the block. The garbage collector rests meanwhile and never looks through what came with them,
    which stays: it would do so again and again (some 50 ms until a node listens)."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if _is_ours:
            gc.freeze()
        if collected:
            gc.enable()
