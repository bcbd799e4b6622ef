"""What holds for all tests, whichever of them are run: settings of property tests, and that Ctrl-C is heard."""

import signal

from hypothesis import settings

# No time limit for one example: a busy machine is not a defect.
settings.register_profile("bezant", deadline=None)
settings.load_profile("bezant")

# A shell has what it runs in the background ignore it, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
