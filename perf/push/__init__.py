"""Measures what subscribers get: how soon one is told, whether a thousand are told everything, and what that costs.

``measuring.py`` runs nodes and load, ``listeners.py`` is the process with the subscribers, ``report.py`` what is told.
"""
