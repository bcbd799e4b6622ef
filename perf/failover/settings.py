"""What `bezant bench failover` was asked for."""

from pathlib import Path
from typing import Final, Literal, get_args

import msgspec

from bezant.protocol.errors import UsageError

FaultName = Literal["kill", "stop", "blackhole", "disk", "restart", "random"]
FAULT_NAMES: Final[tuple[FaultName, ...]] = get_args(FaultName)

REQUESTS_MAX: Final = 20_000_000
"""Requests of one run: some 90 bytes of memory each for what was answered, and 200 for what is in the logs."""
SETTLE_S: Final = 1.0
"""Between a trial's end and the next fault: what is measured is one fault at a time."""
_REQUESTS_PER_S_MAX: Final = 20_000


class FailoverSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One run: `trials` faults one after the other, or with `minutes` one every `every_s`, under `rate` requests/s.

    `fault_s`: how long a node is away, or hangs, before it is started or let go on; longer than an election. Nothing of
    the group is on a disk afterwards unless `keep` says so, or something was wrong.
    """

    trials: int = 30
    fault: FaultName = "kill"
    replicas: int = 3
    rate: int = 2000
    clients: int = 4
    accounts: int = 1000
    deadline_s: float = 5.0
    fault_s: float = 2.0
    settle_s: float = SETTLE_S
    seed: int = 1
    minutes: float | None = None
    every_s: float | None = None
    directory: Path | None = None

    @property
    def trial_count(self) -> int:
        """Faults in all."""
        if self.minutes is None:
            return self.trials
        return max(int(60 * self.minutes / (self.every_s or 60.0)), 1)


def check_settings(settings: FailoverSettings) -> None:
    """Raise `UsageError` for what cannot be measured."""
    limits = {
        "trials": (1, 1_000_000),
        "replicas": (3, 7),
        "rate": (1, _REQUESTS_PER_S_MAX),
        "clients": (1, 100),
        "accounts": (2, 1_000_000),
        "deadline_s": (0.1, 60.0),
        "fault_s": (0.0, 60.0),
        "settle_s": (0.0, 3600.0),
        "seed": (0, (1 << 63) - 1),
        "minutes": (0.1, 24 * 60),
        "every_s": (5.0, 3600.0),
    }
    for name, (least, most) in limits.items():
        value = getattr(settings, name)
        if value is not None and not least <= value <= most:
            raise UsageError(f"--{name.removesuffix('_s').replace('_', '-')} is {least} to {most}, not {value}")
    if settings.every_s is not None and settings.minutes is None:
        raise UsageError("--every goes with --minutes")
    if settings.minutes is not None and 60 * settings.minutes * settings.rate > REQUESTS_MAX:
        raise UsageError(f"{settings.minutes:g} minutes at {settings.rate} requests/s are more than {REQUESTS_MAX}")
    if settings.directory is not None and not settings.directory.is_dir():
        raise UsageError(f"--directory {settings.directory} is not a folder")
