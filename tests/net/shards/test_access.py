"""Claim: shards whose nodes ask for tokens move money between them as others do: their coordinators show the token of
the cluster to each other, and to the metadata group; what is administered beside the log is in that of each."""

import itertools
import secrets
from pathlib import Path
from typing import Any

import pytest

import bezant
from bezant.cli.local_cluster import node_folder
from bezant.cli.local_shards import LocalShards, Plan, init_shards, shard_folder
from bezant.engine.tokens.audit import read_acts
from bezant.net.access.credentials import NO_CREDENTIALS, make_credentials, use_credentials
from bezant.protocol.access import NoteAct, token_text
from bezant.protocol.errors import AccessDenied
from bezant.protocol.frames import Operation
from bezant.protocol.messages import encode_message

from .processes import WAIT_S, verified

CLUSTER = token_text("cccccccccccc", secrets.token_urlsafe(32))


def say_nothing(_words: str, _fields: dict[str, Any]) -> None:
    """Nobody listens."""


async def test_shards_that_ask_for_tokens(tmp_path: Path) -> None:
    file = tmp_path / "cluster"
    file.write_text(CLUSTER)
    folder = tmp_path / "shards"
    init_shards(folder, Plan(2, 1, 0))
    use_credentials(make_credentials(token=CLUSTER))
    try:
        arguments = (f"--cluster-token-file={file}", "--no-reader")
        async with LocalShards(folder, say_nothing, arguments=arguments) as shards:
            addresses = ",".join(shards.addresses)
            async with bezant.connect(addresses, token=CLUSTER, timeout_s=WAIT_S) as wallet:
                names = [f"wallet:{number}" for number in range(8)]
                for name in names:
                    opened = await wallet.open_account(name, "EUR", limit=bezant.UNLIMITED)
                    assert opened.committed
                for payer, payee in itertools.pairwise(names):
                    assert (await wallet.transfer(payer, payee, "1.00", "EUR")).committed
                note = encode_message(NoteAct("CREATE_WEBHOOK", "wh_1 to a.example:443"))
                assert await wallet.channel.request(Operation.NOTE_ACT, note, WAIT_S) == b""
            use_credentials(NO_CREDENTIALS)
            with pytest.raises(AccessDenied):
                await bezant.connect(addresses, timeout_s=5.0)
            await shards.stop()
    finally:
        use_credentials(NO_CREDENTIALS)
    assert verified(folder)
    for shard in range(2):
        acts = [line for line in read_acts(node_folder(shard_folder(folder, shard), 1)) if line.operation == "NOTE_ACT"]
        assert [(act.token_id, act.what) for act in acts] == [("cluster", "CREATE_WEBHOOK wh_1 to a.example:443")]
