"""What is sent to a node that is about to be killed: frames of mixed commands, planned ahead and the same for a seed.

A unit is what stands and falls together: one command, or a linked chain. Frames hold whole units. Most commands are
new; some repeat a unit that was sent before, bytes unchanged, and some use a known id for something else.
"""

import random
import struct
from collections.abc import Callable, Sequence
from enum import IntEnum, unique
from typing import Final, NamedTuple

from bezant.perf.crash.model import Key
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.names import account_id, currency_word
from bezant.protocol.records import COMMAND_SIZE, LIMIT_UNLIMITED

CURRENCY: Final = "EUR"
WORLD: Final = account_id("crash:world", CURRENCY)
FUNDS_UNITS: Final = 100_000
AMOUNT_UNITS_MAX: Final = 1_000
AMOUNT_UNITS_ABSURD: Final = 1 << 50
"""More than any wallet ever has."""
HOLD_TIMEOUT_MS_MAX: Final = 400
"""Short enough that holds expire under load, while the node is down, and during the checks."""
CHAIN_COMMANDS_MAX: Final = 6
UNITS_REMEMBERED_MAX: Final = 2_000

_CURRENCY_WORD: Final = currency_word(CURRENCY)
_COMMAND: Final = struct.Struct("<16s16s16s16s16sqqqqihhq")
_OPEN: Final = struct.Struct("<16s16s48sqqqqihhq")
_AMOUNT_FIELD: Final = 5
_KIND_FIELD: Final = 11
_NOBODY: Final = bytes(16)

if {_COMMAND.size, _OPEN.size} != {COMMAND_SIZE}:
    raise AssertionError("a command of the plan must have the size of a record")


@unique
class Role(IntEnum):
    """What a command is in its frame; it decides which answers are right."""

    OWN = 0
    """The one content of its id; sent for the first time or again."""
    CONFLICT = 1
    """Another content for an id that is known."""
    MALFORMED = 2
    """Never executed, whatever the state."""


class Frame(NamedTuple):
    """Commands of one frame as bytes, and the role of each."""

    body: bytes
    roles: bytes

    @property
    def count(self) -> int:  # type: ignore[override]  # hides tuple.count, which nobody needs here
        """Commands in the frame."""
        return len(self.roles)


class OpenHold(NamedTuple):
    """A hold that a capture or a release may name."""

    identifier: bytes
    debit: bytes
    credit: bytes
    amount: int


class Scene(NamedTuple):
    """What is known of a ledger when a round is planned."""

    accounts: Sequence[bytes]
    holds: Sequence[OpenHold]
    units: Sequence[bytes]
    """Some units with known outcomes, as bytes."""


def command_bytes(
    kind: CommandKind,
    identifier: bytes,
    debit: bytes,
    credit: bytes = _NOBODY,
    amount: int = 0,
    *,
    reference: bytes = _NOBODY,
    timeout_ms: int = 0,
    flags: int = 0,
) -> bytes:
    """Encode a command of any kind but OPEN."""
    return _COMMAND.pack(
        identifier, debit, credit, reference, _NOBODY, amount, 0, 0, timeout_ms, 0, flags, int(kind), 0
    )


def opening_bytes(identifier: bytes, name: str, limit: int) -> bytes:
    """Encode an OPEN."""
    account = account_id(name, CURRENCY)
    return _OPEN.pack(identifier, account, name.encode(), limit, 0, _CURRENCY_WORD, 0, 0, 0, int(CommandKind.OPEN), 0)


def setup_frame(randomness: random.Random, wallet_count: int) -> Frame:
    """The first frame on a new folder: opens the world and wallets, and gives each wallet FUNDS_UNITS."""
    names = [f"crash:wallet:{number:04d}" for number in range(wallet_count)]
    parts = [opening_bytes(randomness.randbytes(16), "crash:world", LIMIT_UNLIMITED)]
    parts += [opening_bytes(randomness.randbytes(16), name, 0) for name in names]
    parts += [
        command_bytes(CommandKind.TRANSFER, randomness.randbytes(16), WORLD, account_id(name, CURRENCY), FUNDS_UNITS)
        for name in names
    ]
    return Frame(b"".join(parts), bytes(len(parts)))


def account_bytes(key: Key) -> bytes:
    """The 16 bytes of an id of two words."""
    return key[0].to_bytes(8, "little", signed=True) + key[1].to_bytes(8, "little", signed=True)


class Planner:
    """Plans the frames of one connection; names of accounts that it opens begin with `prefix`."""

    def __init__(self, randomness: random.Random, scene: Scene, prefix: str) -> None:
        self._random = randomness
        self._accounts = list(scene.accounts)
        self._holds = list(scene.holds)
        self._known = list(scene.units)
        self._sent: list[bytes] = []
        self._prefix = prefix
        self._opened = 0
        makers: tuple[tuple[Callable[[], bytes], int], ...] = (
            (self._transfer, 42),
            (self._hold, 12),
            (self._capture, 9),
            (self._chain, 9),
            (self._repeat, 9),
            (self._refusal, 5),
            (self._release, 4),
            (self._transfer_available, 3),
            (self._open, 2),
            (self._set_limit, 1),
            (self._freeze, 1),
            (self._forbid, 1),
        )
        self._makers = [maker for maker, _ in makers]
        self._weights = [weight for _, weight in makers]

    def frames(self, frame_count: int, commands_max: int) -> list[Frame]:
        """So many frames, each with up to so many commands."""
        return [self._frame(self._random.randint(1, commands_max)) for _ in range(frame_count)]

    def _frame(self, command_count: int) -> Frame:
        """A frame with at least so many commands, and never the same unit twice."""
        units: dict[bytes, int] = {}
        count = 0
        while count < command_count:
            dice = self._random.random()
            if dice < 0.02 and self._known:
                unit, role = self._conflict()
            elif dice < 0.03:
                unit, role = self._malformed(), Role.MALFORMED
            else:
                unit, role = self._random.choices(self._makers, self._weights)[0](), Role.OWN
            if unit not in units:
                units[unit] = role
                count += len(unit) // COMMAND_SIZE
        self._sent += [unit for unit, role in units.items() if role == Role.OWN]
        roles = b"".join(bytes([role]) * (len(unit) // COMMAND_SIZE) for unit, role in units.items())
        return Frame(b"".join(units), roles)

    # ---- what is new ----

    def _id(self) -> bytes:
        return self._random.randbytes(16)

    def _pair(self) -> tuple[bytes, bytes]:
        debit, credit = self._random.sample(self._accounts, 2)
        return debit, credit

    def _wallet_pair(self) -> tuple[bytes, bytes]:
        """A pair whose debit account has a limit."""
        debit, credit = self._pair()
        return (credit, debit) if debit == WORLD else (debit, credit)

    def _amount(self) -> int:
        return self._random.randint(1, AMOUNT_UNITS_MAX)

    def _transfer(self) -> bytes:
        return command_bytes(CommandKind.TRANSFER, self._id(), *self._pair(), self._amount())

    def _transfer_available(self) -> bytes:
        return command_bytes(CommandKind.TRANSFER_AVAILABLE, self._id(), *self._pair(), self._amount() * 20)

    def _hold(self) -> bytes:
        hold = OpenHold(self._id(), *self._pair(), self._amount())
        timeout_ms = self._random.choice((0, self._random.randint(1, HOLD_TIMEOUT_MS_MAX)))
        self._holds.append(hold)
        return command_bytes(CommandKind.HOLD, *hold, timeout_ms=timeout_ms)

    def _capture(self) -> bytes:
        if not self._holds:
            return self._hold()
        hold = self._random.choice(self._holds)
        amount = self._random.choice((0, self._random.randint(1, hold.amount)))
        flags = CommandFlag.KEEP_OPEN if amount and self._random.random() < 0.5 else 0
        if not flags:
            self._holds.remove(hold)
        return command_bytes(
            CommandKind.CAPTURE, self._id(), hold.debit, hold.credit, amount, reference=hold.identifier, flags=flags
        )

    def _release(self) -> bytes:
        if not self._holds:
            return self._hold()
        hold = self._random.choice(self._holds)
        self._holds.remove(hold)
        return command_bytes(CommandKind.RELEASE, self._id(), hold.debit, reference=hold.identifier)

    def _chain(self) -> bytes:
        """Transfers along a path; one chain of four has a member that is refused, and so falls as a whole."""
        count = self._random.randint(2, CHAIN_COMMANDS_MAX)
        falls = self._random.randrange(count) if self._random.random() < 0.25 else -1
        parts = []
        for number in range(count):
            amount = AMOUNT_UNITS_ABSURD if number == falls else self._amount()
            flags = CommandFlag.LINKED if number < count - 1 else 0
            parts.append(command_bytes(CommandKind.TRANSFER, self._id(), *self._wallet_pair(), amount, flags=flags))
        return b"".join(parts)

    def _open(self) -> bytes:
        name = f"{self._prefix}:{self._opened}"
        self._opened += 1
        self._accounts.append(account_id(name, CURRENCY))
        return opening_bytes(self._id(), name, self._random.choice((0, 0, 10_000)))

    def _set_limit(self) -> bytes:
        return command_bytes(
            CommandKind.SET_LIMIT, self._id(), self._wallet_pair()[0], amount=self._random.choice((0, 5_000, 50_000))
        )

    def _freeze(self) -> bytes:
        """More often undone than done, so that few accounts are frozen at a time."""
        kind = self._random.choice((CommandKind.FREEZE, CommandKind.UNFREEZE, CommandKind.UNFREEZE))
        return command_bytes(kind, self._id(), self._random.choice(self._accounts[:8]))

    def _forbid(self) -> bytes:
        return command_bytes(CommandKind.FORBID, self._id(), self._pair()[0])

    def _refusal(self) -> bytes:
        """A command that leaves an event and is refused: for funds, an account, or a hold that is not there."""
        debit, credit = self._wallet_pair()
        return self._random.choice(
            (
                command_bytes(CommandKind.TRANSFER, self._id(), debit, credit, AMOUNT_UNITS_ABSURD),
                command_bytes(CommandKind.HOLD, self._id(), debit, credit, AMOUNT_UNITS_ABSURD),
                command_bytes(CommandKind.TRANSFER, self._id(), debit, self._id(), 1),
                command_bytes(CommandKind.RELEASE, self._id(), debit, reference=self._id()),
                opening_bytes(self._id(), "crash:world", 0),
            )
        )

    # ---- what is not new ----

    def _repeat(self) -> bytes:
        """A unit again: one of this connection, which is before it in order, or one with a known outcome."""
        recent = self._sent[-UNITS_REMEMBERED_MAX:]
        if recent and (not self._known or self._random.random() < 0.5):
            return self._random.choice(recent)
        return self._random.choice(self._known) if self._known else self._transfer()

    def _conflict(self) -> tuple[bytes, Role]:
        """The id of a known transfer with another amount; or a malformed command, if the dice show no transfer."""
        unit = self._random.choice(self._known)
        if len(unit) == COMMAND_SIZE:
            fields = list(_COMMAND.unpack(unit))
            if fields[_KIND_FIELD] == CommandKind.TRANSFER:
                fields[_AMOUNT_FIELD] += 1
                return _COMMAND.pack(*fields), Role.CONFLICT
        return self._malformed(), Role.MALFORMED

    def _malformed(self) -> bytes:
        return command_bytes(CommandKind.TRANSFER, self._id(), *self._pair(), -self._amount())
