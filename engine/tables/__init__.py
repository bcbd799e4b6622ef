"""A history as tables: its events with the accounts that they name, and the accounts and holds that come of them.

Files only, and only to read: one pass over the log, as far as it is committed, up to a stated moment. Nothing is kept,
so this works on any folder, whoever has it open, and costs a pass for each question; one about a part of the history
begins with a checkpoint, if there is one (``seeding.py``). ``surveying.py`` finds how far the log goes by looking at
headers alone, ``replaying.py`` makes the tables, ``history.py`` puts the two together. NumPy arrays come out; whoever
wants another form (Arrow, SQL, Parquet: ``bezant/sql``) makes it of them.
"""
