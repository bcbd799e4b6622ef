"""Placement: which shard has which slot. Making and changing maps is ``maps.py``, how a node keeps one ``file.py``.

The map itself is ``protocol/placement.py``; where maps are kept for all nodes is ``net/placement/``.
"""
