"""Claim: what a node does when its disk hangs or fails is needed: a test fails without it."""

from typing import Any

import pytest

from bezant.net.server import reactor as reactor_module

from . import node as node_module
from . import test_reactor as reactors
from .node import Client, Node, SlowDisk

Patch = pytest.MonkeyPatch


async def test_a_disk_that_hangs_is_noticed(
    node: Node, client: Client, slow_disk: SlowDisk, limits: Any, monkeypatch: Patch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(node.reactor, "on_tick", node.reactor.member.tick)
        with pytest.raises(AssertionError):
            await reactors.test_a_disk_that_hangs_is_told_to_the_member(node, client, slow_disk, limits)


@pytest.mark.parametrize("inline", [True, False])
async def test_a_node_that_goes_on_after_a_failed_sync_is_noticed(
    node: Node, client: Client, monkeypatch: Patch, limits: Any, inline: bool
) -> None:
    with monkeypatch.context() as patch:
        for module in (reactor_module, reactors.syncing):
            patch.setattr(module, "write_or_die", lambda group: 0.0)
        patch.setattr(node_module, "WAIT_S", 0.3)
        with pytest.raises(TimeoutError):
            await reactors.test_a_failed_sync_is_fatal(node, client, patch, limits, inline)
