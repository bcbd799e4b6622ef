"""The command line `bezant`: one module for each command, and the few helpers that they share.

`main.py` knows the commands by name and loads only the one that was asked for, so that `bezant --help` answers at
once. A command module has ``add_parser(subparsers)`` and ``run(arguments) -> int``, and imports what is heavy (NumPy,
the client, rich) inside ``run``.
"""
