"""Compiles all kernels, once for all tests and for all nodes that tests start.

A process that ends while it compiles leaves nothing of it, and the next one begins again; many a test is shorter than
its node's reader takes.
"""

from bezant.engine.projections.warm import warm_projections
from bezant.engine.proofs.hashing import warm_hashing
from bezant.engine.verifying.stored import warm_sums
from bezant.net.reader.warm import warm_subscriptions
from bezant.net.server.warm import warm_kernels

if __name__ == "__main__":
    for warm in (warm_kernels, warm_subscriptions, warm_projections, warm_hashing, warm_sums):
        warm()
