"""Every setting of the processes of Bezant, once: a struct for each command, which is a table of the file of settings.

From these come the options of the command line and the keys of the file (`bezant.cli.options`,
`bezant.cli.config_file`), what `bezant config explain` prints, and the page of reference. Descriptions are told to
operators, so they say what a setting is for, and what happens at its limit. Units are in the names.

``problems`` says what does not go together: words for people, with keys in backquotes; none if all is well.
"""

import ipaddress
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from bezant.cli.session import DEFAULT_ADDRESS, address, addresses, placement

MIB: Final = 1 << 20
COUNT_MAX: Final = 999_999_999_999
DEADLINES_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""As in `bezant.net.gateway.settings`, which needs more than this module may load; a test compares them."""

LogFormat = Annotated[
    str,
    Meta(
        pattern=r"^(text|json)$(?!\n)",
        description="how it writes to its standard error what happens: text, for people, or json, an object a line with"
        " time, level, event and what it is about; its child processes do the same",
        extra={"metavar": "text|json"},
    ),
]
_HOW_IT_IS: Final = (
    "by HTTP how it is: /metrics for Prometheus, /healthz and /readyz; on loopback, because everybody is told, or with"
    " insecure_listen (default: nowhere)"
)

Count = Annotated[int, Meta(ge=1, le=COUNT_MAX)]
Mib = Annotated[int, Meta(ge=1, le=COUNT_MAX)]
Address = Annotated[str, Meta(extra={"check": address, "metavar": "HOST:PORT"})]
Addresses = Annotated[str, Meta(extra={"check": addresses, "metavar": "HOST:PORT,..."})]
Places = Annotated[str, Meta(extra={"check": lambda text: (placement(text), text)[1], "metavar": "PLACES"})]
FilePath = Annotated[str, Meta(min_length=1, extra={"is_path": True, "metavar": "FILE"})]
FolderPath = Annotated[str, Meta(min_length=1, extra={"is_path": True, "metavar": "DIR"})]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file. Its settings are those of one command."""

    def problems(self) -> list[str]:
        """What does not go together."""
        return []


class Access(Table, frozen=True, kw_only=True):
    """What a node, or a reader by itself, is told of its own security."""

    tls_cert: Annotated[
        FilePath,
        Meta(description="talk by TLS alone, with this certificate for the node's hosts", extra={"group": "access"}),
    ] = ""
    tls_key: Annotated[FilePath, Meta(description="the key of that certificate", extra={"group": "access"})] = ""
    tls_ca: Annotated[
        FilePath,
        Meta(
            description="the certificate of the authority that signs for the nodes of the cluster, and for nothing"
            " else: nodes show each other certificates of it",
            extra={"group": "access"},
        ),
    ] = ""
    cluster_token_file: Annotated[
        FilePath,
        Meta(
            description="a file with a token that all nodes of the cluster share, and that may do everything, so also"
            " make the first of those that clients have; make one: bezant tokens generate",
            extra={"group": "access"},
        ),
    ] = ""
    insecure_listen: Annotated[
        bool,
        Meta(
            description="listen at addresses that other machines can reach without TLS or tokens: the network is"
            " trusted",
            extra={"group": "access"},
        ),
    ] = False

    def problems(self) -> list[str]:
        """Files that go together, and addresses that others can reach."""
        found = super().problems()
        if bool(self.tls_cert) != bool(self.tls_key):
            found.append("`tls_cert` and `tls_key` belong together")
        if self.tls_ca and not self.tls_cert:
            found.append("`tls_ca` is whose certificates nodes show each other: it needs `tls_cert` and `tls_key`")
        return found

    def exposed(self, key: str) -> list[str]:
        """What is wrong with listening there, as far as the address tells: a name may be anything."""
        listen = getattr(self, key)
        if self.insecure_listen or (self.tls_cert and self.cluster_token_file) or is_loopback(listen) is not False:
            return []
        return [
            f"`{key}` is {listen}, which can be reached from elsewhere: that takes `tls_cert`, `tls_key` and"
            " `cluster_token_file` or, if the network is trusted, `insecure_listen`"
        ]


class Serve(Access, frozen=True, kw_only=True):
    """A node: `bezant serve`."""

    data: Annotated[
        list[FolderPath],
        Meta(
            description="the data folder; made if it is not there, and held by one process at a time. Several: the"
            " folders of several shards, initialised, each served by a process of its own that is started again if it"
            " ends",
            extra={"example": ["/var/lib/bezant"]},
        ),
    ]
    listen: Annotated[
        Address,
        Meta(
            description="where clients connect; port 0 takes a free one (default: what `bezant init` was told, else"
            f" {DEFAULT_ADDRESS})",
            extra={"example": DEFAULT_ADDRESS},
        ),
    ] = ""
    echo: Annotated[
        Address,
        Meta(
            description="also answer every byte with itself there: the floor that `bezant bench` measures against"
            " (default: nowhere)",
            extra={"example": "127.0.0.1:7499"},
        ),
    ] = ""
    reader_listen: Annotated[
        Address,
        Meta(
            description="where the node's reader takes clients, who find it by themselves (default: a free port of the"
            " same host)",
            extra={"example": "127.0.0.1:7421"},
        ),
    ] = ""
    metrics: Annotated[
        Address,
        Meta(
            description=f"where the node tells {_HOW_IT_IS}; of several folders each has the next port",
            extra={"example": "127.0.0.1:7422"},
        ),
    ] = ""
    reader_metrics: Annotated[
        Address,
        Meta(
            description=f"where the node's reader tells {_HOW_IT_IS}; of several folders each has the next port",
            extra={"example": "127.0.0.1:7423"},
        ),
    ] = ""
    reader: Annotated[
        bool,
        Meta(
            description="start a reader beside the node",
            extra={
                "off": "start no reader beside the node: nobody is told of events, and nothing can be asked about the"
                " past"
            },
        ),
    ] = True
    accounts_max: Annotated[
        Count, Meta(description="how many accounts the node takes; then openings are answered ACCOUNTS_FULL")
    ] = 4_194_304
    holds_max: Annotated[
        Count, Meta(description="how many open holds the node takes; then holds are answered HOLDS_FULL")
    ] = 4_194_304
    free_space_floor_mib: Annotated[
        Mib, Meta(description="free space on the disk at which the node takes no more, so that it never runs full")
    ] = 256
    segment_size_mib: Annotated[
        Mib,
        Meta(
            description="size of the log files made from now on; below 7 a large batch may find no room and is then"
            " refused as STORAGE_FULL"
        ),
    ] = 64
    ids_memory_mib: Annotated[
        int,
        Meta(
            ge=64,
            le=COUNT_MAX,
            description="memory for the ids of commands, however many there are: older ones are on disk",
        ),
    ] = 1024
    checkpoint_ids: Annotated[Count, Meta(description="new ids after which a checkpoint is made")] = 3_145_728
    checkpoint_entries: Annotated[
        Count, Meta(description="entries of the log after which a checkpoint is made, however few ids they have")
    ] = 100_000
    snapshot_behind_mib: Annotated[
        Mib,
        Meta(
            description="how much of the log a node of the group must lack that the leader sends it its state first,"
            " and the history behind that afterwards"
        ),
    ] = 256
    placement: Annotated[
        Places,
        Meta(
            description="where slot maps are kept: HOST:PORT,... of the metadata group, or"
            " zookeeper://HOST:PORT,.../PATH (default: what `bezant init` was told)",
            extra={"example": "127.0.0.1:7420,127.0.0.1:7422,127.0.0.1:7424"},
        ),
    ] = ""
    log_format: LogFormat = "text"

    def problems(self) -> list[str]:
        """What does not go together."""
        found = super().problems()
        if not self.reader and self.reader_listen:
            found.append("`reader_listen` is where a reader takes clients, and there is to be none")
        if not self.reader and self.reader_metrics:
            found.append("`reader_metrics` is where a reader tells how it is, and there is to be none")
        if len(self.data) > 1:
            found += [
                f"`{key}` is for one folder: with several each says where it listens"
                for key in ("listen", "echo", "reader_listen")
                if getattr(self, key)
            ]
            found += self._crowded()
        for key in ("listen", "echo", "reader_listen"):
            found += self.exposed(key)
        return found

    def _crowded(self) -> list[str]:
        """Which places of several folders, at ports one behind the other, are those of others, too, or are none."""
        taken: dict[str, str] = {}
        found = []
        for key in ("metrics", "reader_metrics"):
            for number in range(len(self.data)) if getattr(self, key) else ():
                place = address_behind(getattr(self, key), number)
                port = int(place.rpartition(":")[2])
                if port > PORT_MAX:
                    found.append(
                        f"`{key}` of folder {number + 1} of several would be port {port}: {PORT_MAX} is the last"
                    )
                elif port and place in taken:
                    found.append(f"`{key}` of folder {number + 1} would be {place}, as `{taken[place]}` of another is")
                taken[place] = key
        return found


class Reader(Access, frozen=True, kw_only=True):
    """A reader by itself: `bezant reader`."""

    data: Annotated[
        FolderPath, Meta(description="the data folder", extra={"positional": True, "example": "/var/lib/bezant"})
    ]
    listen: Annotated[Address, Meta(description="where clients connect; port 0 takes a free one")] = "127.0.0.1:0"
    metrics: Annotated[
        Address,
        Meta(
            description=f"where it tells {_HOW_IT_IS}",
            extra={"example": "127.0.0.1:7423"},
        ),
    ] = ""
    log_format: LogFormat = "text"

    def problems(self) -> list[str]:
        """What does not go together."""
        return super().problems() + self.exposed("listen")


class Gateway(Table, frozen=True, kw_only=True):
    """A gateway: `bezant gateway`."""

    connect: Annotated[Addresses, Meta(description="the node, or some nodes of a group")] = DEFAULT_ADDRESS
    listen: Annotated[Address, Meta(description="where clients connect; port 0 takes a free one")] = "127.0.0.1:8080"
    timeout_s: Annotated[
        float,
        Meta(
            ge=DEADLINES_S[0],
            le=DEADLINES_S[-1],
            description="the deadline of requests that name none: 0.1, 0.2, 0.5, 1, 2, 5, 10 or 30",
            extra={"flag": "--timeout"},
        ),
    ] = 5.0
    hosts: Annotated[
        list[str],
        Meta(
            description="a name besides localhost by which clients ask for the gateway, as through a proxy; there may"
            " be several",
            extra={"flag": "--host", "metavar": "NAME", "example": ["pay.example.org"]},
        ),
    ] = []
    requests_max: Annotated[Count, Meta(description="requests that are worked on at a time, at most")] = 8192
    client_requests_max: Annotated[
        Count, Meta(description="requests of one client that are worked on at a time, at most")
    ] = 1024
    client_rate: Annotated[
        float, Meta(gt=0, le=COUNT_MAX, description="requests of one client a second, at most, on average")
    ] = 50_000.0
    client_burst: Annotated[Count, Meta(description="requests that a client may send at once after a pause")] = 10_000
    streams_max: Annotated[Count, Meta(description="streams of events that are open at a time, at most")] = 2000
    client_streams_max: Annotated[Count, Meta(description="of those, of one client")] = 200
    connections_max: Annotated[
        Count, Meta(description="connections of clients, at most; half of them of one address")
    ] = 20_000
    webhooks: Annotated[
        FolderPath,
        Meta(
            description="keep webhooks in this folder, with the secrets that sign their messages, as they are: guard it"
            " like a key; one gateway holds it at a time (default: no webhooks)",
            extra={"example": "/var/lib/bezant-webhooks"},
        ),
    ] = ""
    webhook_allow: Annotated[
        list[str],
        Meta(
            description="a network that webhooks may reach although it is not public, also by http; there may be"
            " several",
            extra={"metavar": "NETWORK", "example": ["10.1.0.0/16"]},
        ),
    ] = []
    webhook_ca: Annotated[
        FilePath,
        Meta(
            description="certificates of authorities that the addresses of webhooks may be signed by, beside those that"
            " this machine trusts",
            extra={"example": "/etc/bezant/webhooks-ca.pem"},
        ),
    ] = ""
    webhook_attempts_max: Annotated[
        Count,
        Meta(description="attempts to send a message of a webhook until it is given up, and kept as a dead letter"),
    ] = 8
    webhook_backoff_s: Annotated[
        float,
        Meta(
            gt=0,
            le=COUNT_MAX,
            description="the pause behind the first attempt; doubled each time, up to 5 minutes",
            extra={"flag": "--webhook-backoff"},
        ),
    ] = 1.0
    listen_cert: Annotated[
        FilePath,
        Meta(description="serve clients by TLS alone, with this certificate", extra={"group": "access"}),
    ] = ""
    listen_key: Annotated[FilePath, Meta(description="the key of that certificate", extra={"group": "access"})] = ""
    insecure_listen: Annotated[
        bool,
        Meta(
            description="listen at an address that other machines can reach without TLS, or before nodes that ask for"
            " no tokens: the network is trusted",
            extra={"group": "access"},
        ),
    ] = False
    token_file: Annotated[
        FilePath,
        Meta(
            description="a file with a token of the gateway's own, with the scope read, by which it asks nodes that ask"
            " for tokens how they are; nobody is served with it: clients bring their own (default: what BEZANT_TOKEN"
            " has, if anything)",
            extra={"group": "access"},
        ),
    ] = ""
    tls: Annotated[
        bool,
        Meta(description="by TLS, with a node that the system's authorities vouch for", extra={"group": "access"}),
    ] = False
    tls_ca: Annotated[
        FilePath,
        Meta(
            description="by TLS, with a node that this authority's certificate vouches for", extra={"group": "access"}
        ),
    ] = ""
    insecure_connect: Annotated[
        bool,
        Meta(
            description="show tokens without TLS to nodes on other machines, too: the network is trusted",
            extra={"group": "access"},
        ),
    ] = False
    log_format: LogFormat = "text"

    def problems(self) -> list[str]:
        """What does not go together."""
        found = super().problems()
        if bool(self.listen_cert) != bool(self.listen_key):
            found.append("`listen_cert` and `listen_key` belong together")
        if not (self.listen_cert or self.insecure_listen) and is_loopback(self.listen) is False:
            found.append(
                f"`listen` is {self.listen}, which can be reached from elsewhere: that takes `listen_cert` and"
                " `listen_key` or, if the network is trusted, `insecure_listen`"
            )
        if self.timeout_s not in DEADLINES_S:
            found.append(f"`timeout_s` is one of {', '.join(f'{seconds:g}' for seconds in DEADLINES_S)}")
        return found


class Cluster(Table, frozen=True, kw_only=True):
    """A group of nodes on one machine, to try things out: `bezant cluster`."""

    data: Annotated[
        FolderPath, Meta(description="holds a folder a node; made on first use", extra={"example": "group"})
    ]
    nodes: Annotated[Count, Meta(description="on first use: how many nodes")] = 3
    shards: Annotated[
        Count,
        Meta(
            description="on first use: how many shards the accounts are spread over, each a group of as many nodes;"
            " with more than one there is also a metadata group, which keeps the slot map",
            extra={"metavar": "S"},
        ),
    ] = 1
    placement: Annotated[
        Places,
        Meta(
            description="on first use, with several shards: keep the slot map there, without a metadata group"
            " (default: in a metadata group)",
            extra={"metavar": "zookeeper://HOST:PORT,.../PATH", "example": "zookeeper://127.0.0.1:2181/bezant"},
        ),
    ] = ""
    base_port: Annotated[
        int,
        Meta(
            ge=0,
            le=65_535,
            description="on first use: the first of two ports for each node; 0 takes any that are free",
            extra={"metavar": "P"},
        ),
    ] = 7420
    log_format: LogFormat = "text"


PORT_MAX: Final = 65_535

TABLES: Final[dict[str, type[Table]]] = {"serve": Serve, "reader": Reader, "gateway": Gateway, "cluster": Cluster}
"""The tables of a file, by their names: those of the commands."""


def address_behind(address: str, number: int) -> str:
    """The address at so many ports behind; any that is free stays that."""
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + number if int(port) else 0}"


def is_loopback(listen: str) -> bool | None:
    """Whether an address is of this machine alone; None if that cannot be told from it, as of a name."""
    host = listen.rpartition(":")[0].strip("[]").partition("%")[0]
    if host in ("", "localhost"):
        return True if host else None
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return None
