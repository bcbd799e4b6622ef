"""`python -m bezant` is the command line."""

import sys

from bezant.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
