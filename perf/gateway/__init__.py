"""Measures the HTTP gateway: ``measuring.py`` runs a node, a gateway and wrk, and beside them ``empty.py``, the same
framework answering a request of the same form with nothing behind it; ``transfers.lua`` makes the requests.
"""
