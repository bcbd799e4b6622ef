"""`bezant bench history`: a history made by the engine, verified, taken in by a reader, and asked.

``making.py`` makes it, ``measuring.py`` takes the figures, ``asking.py`` those of questions; ``report.py`` says what
they mean.
"""
