"""A history in the forms that others read: Arrow record batches, SQL through DuckDB, Parquet files.

In the front door's room because it is a way out and nothing stands on it: the engine makes NumPy arrays
(``engine/tables``) and knows of no other form. PyArrow and DuckDB are the optional extra ``sql``, so nothing but the
commands that need them imports this package. ``arrays.py`` makes columns, ``events.py`` and ``states.py`` the tables of
them, ``database.py`` answers SQL, ``parquet.py`` writes files.
"""
