"""What a seed may draw: how bad the network and the disk are, and how often what goes wrong, by profile."""

from typing import NamedTuple


class Profile(NamedTuple):
    """`rates`: how often a second, in the mean, each kind of trouble begins; each seed draws a part of it. "wipe" is
    not a kind by itself: it allows that a node starts with a blank disk."""

    groups: tuple[int, ...]
    loss: tuple[float, ...]
    repeat: tuple[float, ...]
    delay_us_max: tuple[int, ...]
    sync_us_max: tuple[int, ...]
    rates: dict[str, float]


PROFILES = {
    "calm": Profile(
        groups=(3, 3, 3, 1, 5),
        loss=(0.0,),
        repeat=(0.0,),
        delay_us_max=(500, 5_000, 30_000),
        sync_us_max=(0, 1_000, 10_000),
        rates={"power": 0.4, "kill": 0.4, "pause": 0.2, "transfer": 0.2},
    ),
    "stormy": Profile(
        groups=(3, 3, 3, 4, 5),
        loss=(0.0, 0.02, 0.1, 0.3),
        repeat=(0.0, 0.1, 0.5),
        delay_us_max=(1_000, 5_000, 20_000, 100_000),
        sync_us_max=(0, 2_000, 30_000, 80_000),
        rates={
            "power": 0.4,
            "kill": 0.3,
            "stop at a write": 0.4,
            "power of all": 0.1,
            "pause": 0.4,
            "partition": 0.8,
            "one way": 0.4,
            "heal": 1.0,
            "clog": 0.8,
            "reset": 0.5,
            "clock": 0.3,
            "slow disk": 0.3,
            "transfer": 0.3,
            "members": 0.8,
            "wipe": 1,
        },
    ),
    "disk": Profile(
        groups=(3, 3, 3, 1, 5),
        loss=(0.0, 0.05),
        repeat=(0.0, 0.1),
        delay_us_max=(1_000, 20_000),
        sync_us_max=(0, 5_000, 60_000),
        rates={
            "power": 0.6,
            "kill": 0.2,
            "stop at a write": 1.2,
            "power of all": 0.4,
            "failed sync": 0.4,
            "slow disk": 0.6,
            "rot": 0.4,
            "vote rot": 0.3,
            "wipe": 1,
            "partition": 0.5,
            "heal": 0.8,
        },
    ),
}


class ShardsProfile(NamedTuple):
    """What goes wrong between shards, and (`group`) within each."""

    group: Profile
    loss: tuple[float, ...]
    repeat: tuple[float, ...]
    delay_us_max: tuple[int, ...]
    rates: dict[str, float]


SHARD_PROFILES = {
    "shards": ShardsProfile(
        group=Profile(
            groups=(1, 1, 1, 1, 3),
            loss=(0.0, 0.02, 0.1),
            repeat=(0.0, 0.2),
            delay_us_max=(500, 5_000, 20_000),
            sync_us_max=(0, 2_000, 20_000),
            rates={
                "power": 0.3,
                "kill": 0.3,
                "stop at a write": 0.4,
                "pause": 0.3,
                "partition": 0.5,
                "one way": 0.3,
                "heal": 1.0,
                "clog": 0.3,
                "reset": 0.3,
                "clock": 0.2,
                "slow disk": 0.3,
                "transfer": 0.3,
                "there and back": 1.0,
            },
        ),
        loss=(0.0, 0.05, 0.3),
        repeat=(0.0, 0.1, 0.5),
        delay_us_max=(1_000, 10_000, 60_000),
        rates={
            "apart": 0.5,
            "deaf": 0.5,
            "together": 1.0,
            "clogged between": 0.5,
            "power of all shards": 0.1,
            "lost and apart": 0.6,
            "lost in a move": 1.0,
            "maps away": 0.5,
        },
    )
}
