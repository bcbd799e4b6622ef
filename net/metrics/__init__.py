"""What a process tells to whoever watches it by HTTP: metrics for Prometheus, whether it lives, whether it is ready.

``latencies.py`` counts, ``exposition.py`` writes metrics as text, ``families.py`` makes them of plain numbers,
``node.py`` and ``reader.py`` say which there are, ``http.py`` is the server that answers in the process itself. There
is no library of metrics in between: a process counts in plain lists, and the text is written from the same message
that STATISTICS is answered with.

Knows nothing of nodes or readers, only what they tell.
"""
