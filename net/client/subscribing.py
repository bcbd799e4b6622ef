"""What people write when they subscribe, as it travels: accounts, kinds, names."""

from collections.abc import Iterable, Sequence

from bezant.net.client.commands import cached_account_id, check_id
from bezant.protocol.errors import UsageError
from bezant.protocol.frames import FILTER_ACCOUNTS_MAX, SUBSCRIPTION_NAME_SIZE_MAX
from bezant.protocol.kinds import CommandKind

AccountReference = str | bytes | tuple[str, str]
"""An account by its name, its id, or its name and currency."""


def account_ids(references: Sequence[AccountReference], currencies: Sequence[str]) -> bytes:
    """The ids of accounts, back to back; those named alone in each of these currencies. Raises `UsageError`."""
    ids: list[bytes] = []
    for reference in references:
        if isinstance(reference, bytes):
            ids.append(check_id(reference))
        elif isinstance(reference, str):
            ids += [cached_account_id(reference, currency) for currency in currencies]
        else:
            ids.append(cached_account_id(*reference))
        if len(ids) > FILTER_ACCOUNTS_MAX:
            raise UsageError(
                f"a subscription has {FILTER_ACCOUNTS_MAX} accounts at most; a name without a currency is one in each "
                "currency"
            )
    return b"".join(ids)


def kind_numbers(kinds: Iterable[CommandKind | str]) -> list[int]:
    """The numbers of kinds, such as "transfer". Raises `UsageError`."""
    known = {kind.name.lower(): kind for kind in CommandKind}
    numbers = []
    for kind in kinds:
        found = known.get(kind.lower()) if isinstance(kind, str) else kind
        if found is None:
            raise UsageError(f"there is no kind {kind!r}; there are {', '.join(known)}")
        numbers.append(int(found))
    return numbers


def check_subscription_name(name: str) -> None:
    """Raise `UsageError` unless this can be the name of a subscription, or is "" for none."""
    if len(name) > SUBSCRIPTION_NAME_SIZE_MAX or not all("!" <= character <= "~" for character in name):
        raise UsageError(
            f"the name of a subscription has up to {SUBSCRIPTION_NAME_SIZE_MAX} characters of ASCII, and no spaces"
        )
