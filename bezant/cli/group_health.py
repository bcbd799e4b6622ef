"""What a group's nodes say of themselves, as findings: who answers, which versions, who lags, whose clock is off."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from bezant.cli.machine import ERROR, WARNING, MachineFinding
from bezant.protocol.errors import BezantError

if TYPE_CHECKING:
    from bezant.protocol.messages import MembersStatus

TIMEOUT_S: Final = 5.0
LAG_ENTRIES_MAX: Final = 1000
CLOCK_OFFSET_MS_MAX: Final = 100
_NS_PER_MS: Final = 1_000_000


async def examine_group(addresses: Sequence[str]) -> list[MachineFinding]:
    """Ask the nodes at these addresses; each is asked by itself for its version."""
    from bezant.net.client.members import read_members

    found = []
    try:
        found += judge_members(await read_members(addresses, TIMEOUT_S))
    except BezantError as error:
        found.append(
            MachineFinding("group", ERROR, str(error), "see why no node answers: its log, bezant members status")
        )
    found += judge_versions({address: await _version_of(address) for address in addresses})
    return found


def judge_members(status: "MembersStatus") -> list[MachineFinding]:
    """What the group says of its members."""
    if status.leader:
        found = [MachineFinding("leader", "good", f"node {status.leader}")]
    else:
        found = [MachineFinding("leader", ERROR, "no node leads", "start nodes until a majority is up")]
    for member in status.members:
        subject = f"node {member.node_id}"
        offset_ms = (member.clock_offset_ns or 0) / _NS_PER_MS
        if member.problem or not member.active:
            words = member.problem or "it does not answer"
            found.append(MachineFinding(subject, WARNING, words, "see to it: a majority may not survive another loss"))
        elif (member.lag_entries or 0) > LAG_ENTRIES_MAX:
            words = f"it lacks {member.lag_entries} entries"
            found.append(
                MachineFinding(subject, WARNING, words, "look again: if it grows, see to its disk and network")
            )
        elif abs(offset_ms) > CLOCK_OFFSET_MS_MAX:
            words = f"its clock is off by {offset_ms:+.0f} ms"
            found.append(MachineFinding(subject, WARNING, words, "see to the time service there"))
        else:
            found.append(MachineFinding(subject, "good", f"{member.role}, lacks {member.lag_entries or 0} entries"))
    return found


def judge_versions(versions: dict[str, str]) -> list[MachineFinding]:
    """Whether all nodes that answered are of one version; an empty one is of a node that did not answer."""
    answered = {address: version for address, version in versions.items() if version}
    silent = [address for address, version in versions.items() if not version]
    told = ", ".join(f"{address} {version}" for address, version in answered.items())
    if len(set(answered.values())) > 1:
        return [MachineFinding("versions", WARNING, told, "end the upgrade: new rules wait for the last node")]
    if silent:
        words = "; ".join(filter(None, (told, f"{', '.join(silent)} did not say")))
        return [MachineFinding("versions", WARNING, words, "see that every node can be reached, then ask again")]
    return [MachineFinding("versions", "good", told)]


async def _version_of(address: str) -> str:
    """Version and digest of kernels of a node; "" if it does not say."""
    from bezant.net.client.members import read_welcome

    try:
        welcome = await read_welcome(address, TIMEOUT_S)
    except BezantError:
        return ""
    return f"{welcome.server} ({welcome.kernel_digest})"
