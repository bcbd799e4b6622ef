"""Load generators and what turns their figures into a report; `bezant bench` is the way in.

``session.py`` runs a measurement; ``generator.py`` and ``sdk.py`` are the load processes that it starts.
"""
