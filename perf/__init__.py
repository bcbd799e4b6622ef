"""Measurements: load generators, micro-benchmarks, reports. Start with README.md.

Of the product, only `bezant bench` imports this room.
"""
