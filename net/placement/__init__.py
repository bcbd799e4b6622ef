"""Where slot maps are kept for all nodes: one interface (``store.py``) with two homes, a metadata group
(``metadata.py``) and ZooKeeper (``zookeeper.py``, with the extra `zookeeper`).
"""
