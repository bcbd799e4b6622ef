"""`bezant bench history`: a history made by the engine, and how soon the reader's projections take it in and answer.

``making.py`` makes it, ``measuring.py`` takes the figures.
"""
