"""Runs seeds: ``python -m tests.simulator --seeds N --from M [--profile P] [--replay SEED] [--record FILE]``."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
