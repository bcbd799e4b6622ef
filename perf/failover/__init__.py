"""Hits the nodes of a group, one after the other, under load; measures how long nobody is answered, and checks it all.

Start with `rig.py` (the trials). Beside it: `group.py` (the nodes and what is done to them), `network.py` (cables that
can be cut), `stalling_node.py` (a disk that stops), `load.py` and `book.py` (what was asked and answered),
`outage.py` (how long nobody was), `history.py` (the three logs) and `check.py` (whether the logs and the answers say
the same). `bezant bench failover` is the way in, and ``python -m bezant.perf.crash --replicas 3``.
"""
