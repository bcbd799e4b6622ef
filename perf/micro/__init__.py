"""Micro-benchmarks with pyperf of the parts that a transfer passes through: ``python -m bezant.perf.micro``."""
