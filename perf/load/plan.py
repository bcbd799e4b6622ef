"""What the command and its load process say to each other: a plan in on stdin, then lines of JSON out on stdout."""

from typing import Literal

import msgspec

from bezant.protocol.statistics import Statistics

IdKind = Literal["time", "random"]
LoadMix = Literal["plain", "mixed"]


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One load, as `bezant bench` was asked for it; what is not given is plain, and unused by the SDK's.

    ``transfers`` counts commands of every kind, if the ``load`` has others. ``zipf`` is the exponent by which accounts
    are chosen, 0 for equal chances, and ``ids_before`` how many transfers with random ids come first, unmeasured.
    ``inflight`` counts frames of one client that wait for a reply. ``echo`` is the address of the node's echo listener
    ("" if it has none), ``node_process_id`` and ``data`` its process and data folder if they are ours to look at (else
    0 and ""), ``replica_process_ids`` those of all nodes of a group that is ours, and ``stall_timeout_s`` how long no
    reply at all may come before the load gives up. Of several ``shards`` there is an address each in
    ``shard_addresses``, and the folder of that node's data in ``shard_data`` if it is ours; the first ``loaded_shards``
    get the transfers; ``cross`` is the share of these, 0 to 1, that pay into accounts of other shards. ``token`` is
    shown to the node ("": none), without TLS, and to another machine if ``insecure``.
    """

    address: str
    transfers: int
    accounts: int
    batch: int = 1
    clients: int = 1
    inflight: int = 1
    concurrency: int = 1
    ids: IdKind = "time"
    load: LoadMix = "plain"
    zipf: float = 0.0
    ids_before: int = 0
    seed: int = 1
    echo: str = ""
    node_process_id: int = 0
    replica_process_ids: list[int] = []
    data: str = ""
    shards: int = 1
    loaded_shards: int = 1
    cross: float = 0.0
    token: str = ""
    insecure: bool = False
    shard_addresses: list[str] = []
    shard_data: list[str] = []
    stall_timeout_s: float = 60.0


class LoadProgress(msgspec.Struct, frozen=True, tag="progress"):
    """So many transfers have been answered, those before the load included."""

    done: int


class LoadFailure(msgspec.Struct, frozen=True, tag="failure"):
    """The load could not be run; ``error`` names a class of `bezant.protocol.errors`."""

    error: str
    message: str


class LoadOutcome(msgspec.Struct, frozen=True, kw_only=True, tag="outcome"):
    """What a load process measured and what it found in the books afterwards.

    ``books_fault`` is None if the accounts say the same as the replies did. ``seconds`` runs from the first send to the
    last reply; the processor times of both processes and the bytes on the disk are those within it. The echo's median
    is over round trips before and after. ``kinds`` counts the commands of a generator's load, and ``refused`` those of
    the ``rejected`` that were meant to be.
    """

    seconds: float
    accepted: int
    rejected: int
    unknown: int
    repeated: int
    rejected_codes: dict[str, int]
    latency_us: dict[str, float | None]
    echo_p50_us: float | None
    load_cpu_seconds: float
    node_cpu_seconds: float | None
    bytes_on_disk: int
    books_fault: str | None
    kernel_digest: str
    statistics_before: Statistics
    statistics_after: Statistics
    replica_cpu_seconds: list[float | None] = []
    kinds: dict[str, int] = {}
    refused: int = 0
    warnings: list[str] = []


LoadLine = LoadProgress | LoadFailure | LoadOutcome
