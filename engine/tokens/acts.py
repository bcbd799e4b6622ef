"""The leader writes down who asked for what: an act is a control entry that changes nothing.

It is appended before what was asked for is tried, so that nothing is ever done without it; what is then refused leaves
a second one, with the reason.
"""

from typing import Final

from bezant.engine.replica import Replica
from bezant.protocol.access import Act
from bezant.protocol.errors import StorageError
from bezant.protocol.messages import ControlEntry, encode_message
from bezant.protocol.records import ENTRIES_TOKENS

ACT_TEXT_SIZE_MAX: Final = 2_000
"""Characters of what a request said, and of why it was not done."""


def escaped(text: str) -> str:
    """A text in which the characters are escaped that a terminal obeys, or that turn the direction of what is read."""
    return "".join(part if part.isprintable() else part.encode("unicode_escape").decode("ascii") for part in text)


def write_act(replica: Replica, token_id: str, operation: str, what: str, outcome: str = "") -> None:
    """Append an act. Raises `StorageError` if there is no room for it, and `UsageError` while voters do not know such
    entries."""
    if not len(replica.ledger.tokens):  # else every voter has had to know such entries, and one may be lost by now
        replica.check_ready(ENTRIES_TOKENS)
    what, outcome = (escaped(text[:ACT_TEXT_SIZE_MAX])[:ACT_TEXT_SIZE_MAX] for text in (what, outcome))
    control = ControlEntry(act=Act(token_id, operation, what, outcome))
    if not replica.log.has_room(len(encode_message(control))):
        raise StorageError("the disk is at its free-space floor; nothing can be administered now")
    replica.append_control(control)
