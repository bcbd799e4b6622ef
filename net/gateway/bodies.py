"""What requests and answers look like. Amounts are decimal strings, positions opaque strings, times RFC 3339 in UTC.

Members that a request may not have are refused: a name with a typing error must not be taken for one left out.

Patterns end with ``$(?!\\n)``: what Python's ``$`` lets pass, a line feed at the end, is none; and the description of
the API has them as well, where ``\\Z`` would mean something else.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bezant.net.client.tracing import Phase, SideState, TraceKind
from bezant.net.gateway.identity import TEXT_SIZE_MAX
from bezant.protocol.kinds import TIMEOUT_MS_MAX, TRANSACTION_LEGS_MAX

AccountName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=48,
        pattern=r"^[!-~]+$(?!\n)",
        description="The name of an account: 1 to 48 printable ASCII characters without spaces.",
        examples=["wallet:ann"],
    ),
]
CurrencyCode = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=8,
        pattern=r"^[A-Z0-9]+$(?!\n)",
        description="A registered currency: 1 to 8 capital letters and digits.",
        examples=["EUR"],
    ),
]
Amount = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=40,
        pattern=r"^[0-9]+(\.[0-9]+)?$(?!\n)",
        description="An exact decimal, in no more decimals than the currency has.",
        examples=["12.50"],
    ),
]
Limit = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=40,
        pattern=r"^(unlimited|[0-9]+(\.[0-9]+)?)$(?!\n)",
        description="How far below zero an account may go: a decimal, or `unlimited` for those of the outside world.",
        examples=["0"],
    ),
]
TransactionId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=TEXT_SIZE_MAX,
        description="Names the command for ever, with the account that it is about or that pays: the same again gets "
        "the first outcome and moves nothing twice. A UUID is the id itself; any other text is hashed. It can be "
        "given as the header `Idempotency-Key` instead.",
        examples=["01589980-2664-11ec-9621-0242ac130002"],
    ),
]
Code = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1, description="The caller's own; it comes back in the event.")]


class CommandBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the body of every command has."""

    transaction_id: TransactionId | None = None


class BalanceTransfer(CommandBody, frozen=True, kw_only=True):
    """A transfer from one wallet to another."""

    from_account: AccountName
    to_account: AccountName
    amount: Amount
    currency: CurrencyCode
    code: Code = 0


class OpenAccount(CommandBody, frozen=True, kw_only=True):
    """An account to be opened."""

    name: AccountName
    currency: CurrencyCode
    limit: Limit = "0"
    code: Code = 0


class ChangeAccount(CommandBody, frozen=True, kw_only=True):
    """An account to be frozen, unfrozen or closed; its name is in the path."""

    currency: CurrencyCode
    code: Code = 0


class SetLimit(CommandBody, frozen=True, kw_only=True):
    """A new limit; the account's name is in the path."""

    currency: CurrencyCode
    limit: Limit
    code: Code = 0


class MakeHold(CommandBody, frozen=True, kw_only=True):
    """An amount to be set aside. Its `transaction_id` names the hold. Without `expires_in_ms` it has no end."""

    from_account: AccountName
    to_account: AccountName
    amount: Amount
    currency: CurrencyCode
    expires_in_ms: Annotated[int, Meta(ge=0, le=TIMEOUT_MS_MAX)] = 0
    code: Code = 0


class CaptureHold(CommandBody, frozen=True, kw_only=True):
    """What is held, or an amount of it, to be moved. With `keep_open` the rest stays held."""

    from_account: AccountName
    to_account: AccountName
    currency: CurrencyCode
    amount: Amount | None = None
    keep_open: bool = False
    code: Code = 0


class ReleaseHold(CommandBody, frozen=True, kw_only=True):
    """What is left of a hold, to be free again."""

    from_account: AccountName
    currency: CurrencyCode
    code: Code = 0


class Leg(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One transfer of a transaction."""

    from_account: AccountName
    to_account: AccountName
    amount: Amount
    currency: CurrencyCode
    code: Code = 0


class MakeTransaction(CommandBody, frozen=True, kw_only=True):
    """Transfers that are all done, or none.

    `tcc` tries all at once and then confirms or cancels all; `saga` does one after the other, and takes them back
    if one is refused. Answered when it is decided or, with `answer_when` "applied", when every
    leg is done or taken back.
    """

    legs: Annotated[list[Leg], Meta(min_length=1, max_length=TRANSACTION_LEGS_MAX)]
    mode: Literal["tcc", "saga"] = "tcc"
    answer_when: Literal["decided", "applied"] = "decided"


class ResolveCommand(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The account that paid, or was to pay."""

    from_account: AccountName
    currency: CurrencyCode


class RegisterCurrency(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A currency to be registered, for ever."""

    code: CurrencyCode
    decimals: Annotated[int, Meta(ge=0, le=18)]


# Answers.


class Transferred(msgspec.Struct, frozen=True, kw_only=True):
    """Done, durably. Balances are those after it; of an account in another shard they are null.

    `repeated`: the id was known, and this is its first outcome, with the balances of then.
    """

    status: Literal["success"] = "success"
    transaction_id: str
    repeated: bool
    position: str | None
    time: str
    amount: str
    currency: str
    from_balance: str
    from_held: str
    to_balance: str | None
    to_held: str | None


class AccountChanged(msgspec.Struct, frozen=True, kw_only=True):
    """Done, durably. Balances are those after it."""

    status: Literal["success"] = "success"
    transaction_id: str
    repeated: bool
    position: str | None
    time: str
    balance: str
    held: str


class TransactionDone(msgspec.Struct, frozen=True, kw_only=True):
    """Decided, durably. `applied`: every leg is done; if not, it will be."""

    status: Literal["success"] = "success"
    transaction_id: str
    repeated: bool
    applied: bool


class AsOfBody(msgspec.Struct, frozen=True):
    """What an answer is as of: behind the event at this position (null over several shards), at this time."""

    position: str | None
    time: str | None


class AccountBody(msgspec.Struct, frozen=True, kw_only=True):
    """An account. `available` is the balance less what is held; it may go `limit` below zero."""

    name: str
    currency: str
    balance: str
    held: str
    available: str
    limit: str
    frozen: bool
    closed: bool
    event_count: int
    opened_position: str
    last_position: str
    as_of: AsOfBody | None = None


class AccountsPage(msgspec.Struct, frozen=True):
    """Accounts, in the order in which they were opened; `next` is the cursor of the page that follows."""

    accounts: list[AccountBody]
    next: str | None


class EventBody(msgspec.Struct, frozen=True, kw_only=True):
    """What happened. `amount` is what was asked and `moved` what was done; balances are those after it.

    Events about one account have it in `from_account`. `result` is COMMITTED, or the code that says why not. Accounts
    that a token is not told of are null, and so are their balances.
    """

    position: str
    time: str
    kind: str
    result: str
    transaction_id: str
    from_account: str | None
    to_account: str | None
    currency: str
    amount: str
    moved: str
    from_balance: str | None
    from_held: str | None
    to_balance: str | None
    to_held: str | None
    hold_id: str | None
    code: int


class EventsPage(msgspec.Struct, frozen=True):
    """Events, all as of the same moment; `next` is the cursor of the page that follows."""

    as_of: AsOfBody
    events: list[EventBody]
    next: str | None


class SideBody(msgspec.Struct, frozen=True, kw_only=True):
    """One account of a leg: what was done to it, in order, and how far that is.

    `waiting`: nothing yet; `tried`: held, or reserved to be received; `done`; `cancelled`: free again; `given_back`:
    done, and undone by a step of its own; `refused`. `shard` is null as long as it is not known; `time` is that of the
    last event.
    """

    account: Annotated[str, Meta(examples=["wallet:ann"])]
    shard: Annotated[int, Meta(examples=[1])] | None
    status: Annotated[SideState, Meta(examples=["done"])]
    time: Annotated[str, Meta(examples=["2026-05-01T12:00:00.000000000Z"])] | None
    events: list[EventBody]


class LegBody(msgspec.Struct, frozen=True, kw_only=True):
    """One transfer of a transaction, by its number from 0. What a token is not told of is null."""

    number: Annotated[int, Meta(ge=0, examples=[0])]
    from_account: Annotated[str, Meta(examples=["wallet:ann"])] | None
    to_account: Annotated[str, Meta(examples=["wallet:bob"])] | None
    amount: Annotated[str, Meta(examples=["12.50"])]
    currency: Annotated[str, Meta(examples=["EUR"])]
    phase: Annotated[Phase, Meta(examples=["confirmed"])]
    debit: SideBody | None
    credit: SideBody | None


class TransactionBody(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a transaction, in all shards at one moment.

    `kind`: `tcc` and `saga` as it was asked for, and transfers between shards are `tcc`; `direct` is done at once, by
    one shard. `phase`: `trying` until it is decided; then `confirming` and `confirmed`, or `cancelling` (`compensating`
    where something done has to be undone) and `cancelled`: nothing is held or moved any more; `refused` before anything
    was tried. `result`: null until decided, COMMITTED, or the code that says why not; `refused_leg` is whose.
    """

    transaction_id: Annotated[str, Meta(examples=["01589980-2664-11ec-9621-0242ac130002"])]
    kind: Annotated[TraceKind, Meta(examples=["tcc"])]
    phase: Annotated[Phase, Meta(examples=["confirmed"])]
    result: Annotated[str, Meta(examples=["COMMITTED"])] | None
    refused_leg: Annotated[int, Meta(ge=0, examples=[1])] | None
    shards: Annotated[list[int], Meta(examples=[[0, 1]])]
    begun: Annotated[str, Meta(examples=["2026-05-01T12:00:00.000000000Z"])]
    ended: Annotated[str, Meta(examples=["2026-05-01T12:00:00.004000000Z"])] | None
    legs: list[LegBody]
    as_of: AsOfBody


class HoldBody(msgspec.Struct, frozen=True):
    """A hold that is open, or was: the event that made it, and what remained of it."""

    hold_id: str
    remaining: str
    made_by: EventBody


class HoldsBody(msgspec.Struct, frozen=True):
    """Holds in the order in which they were made, all as of the same moment; `next` is the cursor of the page that
    follows, and `complete` says whether there is none."""

    as_of: AsOfBody
    holds: list[HoldBody]
    next: str | None
    complete: bool


class SumsBody(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of one currency. What is below zero, above it and in flight between shards adds up to zero."""

    currency: str
    accounts_opened: int
    accounts_closed: int
    moves: int
    moved: str
    positive: str
    negative: str
    held: str
    in_flight: str


class TotalsBody(msgspec.Struct, frozen=True):
    """The sums of every currency in use."""

    as_of: AsOfBody
    currencies: list[SumsBody]


class CurrencyBody(msgspec.Struct, frozen=True):
    """A registered currency, and how many decimals its amounts have."""

    code: str
    decimals: int


class CurrenciesBody(msgspec.Struct, frozen=True):
    """All registered currencies."""

    currencies: list[CurrencyBody]


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command. `executed` false: it was not done and, from now on, never will be.

    `result` is COMMITTED or the code of its refusal; ID_FORBIDDEN if it had not been executed.
    """

    transaction_id: str
    executed: bool
    result: str
    position: str | None
