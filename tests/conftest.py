"""What holds for all tests, whichever of them are run: settings of property tests, that Ctrl-C is heard, and that what
loads NumPy does not spin for nothing."""

import os
import signal

from hypothesis import settings

# No time limit for one example: a busy machine is not a defect.
settings.register_profile("bezant", deadline=None)
settings.load_profile("bezant")

# A shell has what it runs in the background ignore it, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Commands see to this themselves; programs of a few lines, which tests start by the hundred, do not.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
