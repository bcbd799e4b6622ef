"""What a process tells to whoever watches it by HTTP: metrics for Prometheus, whether it lives, whether it is ready.

``exposition.py`` writes metrics as text, ``node.py`` and ``reader.py`` say which there are, ``http.py`` is the server
that answers in the process itself. There is no library of metrics in between: a process counts in plain lists, and the
text is written from the same message that STATISTICS is answered with.

``http.py`` knows nothing of nodes; the rest imports the protocol alone.
"""
