"""A real `bezant serve` in a process of its own, to be killed at any moment from its first instruction on."""

from pathlib import Path

from bezant.cli.node_process import NodeProcess
from bezant.engine.replica import IDS_MEMORY_BYTES_MIN


def start_node(data: Path, segment_size_mib: int, checkpoint_ids: int) -> NodeProcess:
    """Start a node, with little memory for ids, and return at once."""
    options = ("--segment-size-mib", str(segment_size_mib), "--checkpoint-ids", str(checkpoint_ids))
    memory = ("--ids-memory-mib", str(IDS_MEMORY_BYTES_MIN >> 20))
    node = NodeProcess(data, arguments=(*options, *memory))
    node.start()
    return node
