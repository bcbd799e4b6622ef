"""Kills real nodes under load, again and again, and holds every answer that they gave against what they know after it.

Start with `rig.py` (the rounds). Beside it: `plan.py` (what is sent), `book.py` (what was sent and answered), `load.py`
(sending), `node.py` (the process), `checks.py` (what is asked of a node after a crash), `model.py` (what its history
must add up to). Run it with ``python -m bezant.perf.crash``.
"""
