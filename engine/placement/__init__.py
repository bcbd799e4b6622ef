"""Placement: which shard has which slot. Making and changing maps is ``maps.py``, how a node keeps one ``file.py``.
``replacing.py`` is what a metadata group does, whose replicated state has the map in force.

The map itself is ``protocol/placement.py``; where maps are kept for all nodes is ``net/placement/``.
"""
