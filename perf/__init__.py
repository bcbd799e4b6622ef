"""Measurements: load generators, micro-benchmarks, reports. See README.md; nothing of the product imports this."""
