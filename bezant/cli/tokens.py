"""`bezant tokens`: makes, lists and revokes the tokens with which clients come in.

Each group keeps its own list, so of several shards all are asked. Nobody but who makes a token ever has its text.
"""

import argparse
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bezant.cli.errors import CommandFailed, InputWrong
from bezant.cli.output import write_json, write_remark, write_table
from bezant.cli.session import (
    DEFAULT_ADDRESS,
    DEFAULT_TIMEOUT_S,
    add_json_argument,
    addresses,
    positive_seconds,
    run_async,
)
from bezant.protocol.errors import BezantError

if TYPE_CHECKING:
    from bezant.net.client.connection import TcpChannel
    from bezant.protocol.access import Scope, Token, Tokens

_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_HEADINGS: Final = ("id", "scopes", "accounts", "made", "revoked", "for")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant tokens`."""
    parser = subparsers.add_parser("tokens", description="Make, list and revoke the tokens with which clients come in.")
    actions = parser.add_subparsers(dest="action", metavar="create|list|revoke|generate", required=True)
    create = actions.add_parser(
        "create",
        description="Make a token. Its text is told once, here, and kept by nobody: the ledger has a digest of it. From"
        " the first one on, which has to have the scope admin, nobody gets in without.",
    )
    create.add_argument(
        "--scopes", metavar="SCOPE,...", type=_scopes, required=True, help="what it is for: read, transfer, admin, peer"
    )
    create.add_argument(
        "--prefix",
        metavar="PREFIX",
        action="append",
        default=[],
        help="limit it to accounts whose names begin so: they alone pay, and are told of; may be given several times",
    )
    create.add_argument(
        "--note", metavar="TEXT", default="", help="what it is for, in words that all administrators see"
    )
    create.add_argument("--out", metavar="FILE", type=Path, help="write it to a new file, for you alone to read")
    _add_connect_arguments(create)
    listing = actions.add_parser("list", description="List all tokens there ever were, without their texts.")
    _add_connect_arguments(listing)
    add_json_argument(listing)
    revoke = actions.add_parser("revoke", description="Let a token count no more, and end the connections that it has.")
    revoke.add_argument("token", metavar="ID", help="the id of the token: the 12 characters behind bezant_")
    _add_connect_arguments(revoke)
    generate = actions.add_parser(
        "generate", description="Make a token that no ledger knows, for `bezant serve --cluster-token-file`."
    )
    generate.add_argument("--out", metavar="FILE", type=Path, help="write it to a new file, for you alone to read")


def _add_connect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--connect",
        metavar="HOST:PORT,...",
        type=addresses,
        default=DEFAULT_ADDRESS,
        help="nodes of the ledger, of any shard; the metadata group has tokens of its own (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        dest="timeout_s",
        type=positive_seconds,
        default=DEFAULT_TIMEOUT_S,
        help="how long to wait for each answer (default: %(default)s)",
    )


def _scopes(text: str) -> "list[Scope]":
    from bezant.protocol.access import Scope

    try:
        return [Scope(word.strip()) for word in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"scopes are {', '.join(Scope)}, not {text!r}") from error


def run(arguments: argparse.Namespace) -> int:
    """Make, list or revoke."""
    if arguments.action == "generate":
        text, _ = new_token()
        _hand_over(text, arguments.out)
        return 0
    return run_async(_ACTIONS[arguments.action](arguments))


def new_token() -> tuple[str, str]:
    """A random token: its text and its id."""
    from bezant.protocol.access import ID_SIZE, TOKEN_SECRET_SIZE, token_text

    token_id = "".join(secrets.choice(_ALPHABET) for _ in range(ID_SIZE))
    return token_text(token_id, secrets.token_urlsafe(TOKEN_SECRET_SIZE)), token_id


def _hand_over(text: str, out: Path | None) -> None:
    """Give a token to whoever asked for it: on the standard output, or in a file of theirs."""
    if out is None:
        sys.stdout.write(f"{text}\n")
        return
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise InputWrong(f"the token cannot be written to {out}: {error.strerror}", "give another --out") from error
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())


async def _create(arguments: argparse.Namespace) -> int:
    from bezant.protocol.access import ChangeTokens, Token, check_token, digest_of

    text, token_id = new_token()
    token = Token(token_id, digest_of(text), arguments.scopes, arguments.prefix, arguments.note)
    check_token(token)
    _hand_over(text, arguments.out)  # before it counts, or it could be lost and count
    await _change(arguments, ChangeTokens(create=token), f"token {token_id} counts")
    return 0


async def _revoke(arguments: argparse.Namespace) -> int:
    from bezant.protocol.access import ChangeTokens

    await _change(arguments, ChangeTokens(revoke=arguments.token), f"token {arguments.token} counts no more")
    return 0


async def _change(arguments: argparse.Namespace, change: object, done: str) -> None:
    """Have every group make a change. Raises `CommandFailed` if some did and others did not."""
    made: list[str] = []
    try:
        async with _groups(arguments) as groups:
            for channel in groups:
                await _ask(channel, change, arguments.timeout_s)
                made.append(f"shard {channel.welcome.shard}")
    except BezantError as error:
        if not made:
            raise
        raise CommandFailed(
            f"{done} in {', '.join(made)}, and not everywhere: {error}", "revoke it; the command may be repeated"
        ) from error
    write_remark(f"bezant: {done}")


async def _list(arguments: argparse.Namespace) -> int:
    from bezant.protocol.access import Token

    lists: dict[str, list[Token]] = {}
    async with _groups(arguments) as groups:
        for channel in groups:
            lists[f"shard {channel.welcome.shard}"] = (await _ask(channel, None, arguments.timeout_s)).tokens
    known = {token.token_id: token for tokens in lists.values() for token in tokens}
    if arguments.json:
        fields = [name for name in Token.__struct_fields__ if name != "digest"]
        told = [{name: getattr(token, name) for name in fields} for token in known.values()]
        write_json({"tokens": told})
        return 0
    write_table(_HEADINGS, [_row(token) for token in known.values()])
    for place, tokens in lists.items():
        counting = {token.token_id for token in tokens if not token.revoked_ns}
        for token in known.values():
            if (token.token_id in counting) == bool(token.revoked_ns):
                write_remark(f"bezant: {place} does not agree on token {token.token_id}: revoke it")
    return 0


def _row(token: "Token") -> list[str]:
    accounts = ", ".join(f"{prefix}*" for prefix in token.prefixes) or "all"
    revoked = _time(token.revoked_ns) if token.revoked_ns else "-"
    return [token.token_id, ",".join(token.scopes), accounts, _time(token.created_ns), revoked, token.note]


def _time(timestamp_ns: int) -> str:
    return datetime.fromtimestamp(timestamp_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")


async def _ask(channel: "TcpChannel", change: object, timeout_s: float) -> "Tokens":
    from bezant.protocol.access import ChangeTokens, Tokens
    from bezant.protocol.frames import Operation
    from bezant.protocol.messages import decode_message, encode_message

    if isinstance(change, ChangeTokens):
        body = await channel.request(Operation.CHANGE_TOKENS, encode_message(change), timeout_s)
    else:
        body = await channel.request(Operation.TOKENS, b"", timeout_s)
    return decode_message(body, Tokens)


@asynccontextmanager
async def _groups(arguments: argparse.Namespace) -> "AsyncIterator[list[TcpChannel]]":
    """A channel to the leader of every group of the ledger: of each shard, if there are several."""
    from bezant.net.client.connection import TcpChannel
    from bezant.protocol.frames import Operation
    from bezant.protocol.messages import decode_message
    from bezant.protocol.placement import METADATA_SHARD, SlotMap

    seed = await TcpChannel.open(arguments.connect, arguments.timeout_s)
    channels = [seed]
    try:
        if seed.welcome.map_version and seed.welcome.shard != METADATA_SHARD:
            found = decode_message(await seed.request(Operation.MAP, b"", arguments.timeout_s), SlotMap)
            for place in found.shards:
                if place.shard != seed.welcome.shard:
                    addresses_of_place = ",".join(place.addresses)
                    channels.append(await TcpChannel.open(addresses_of_place, arguments.timeout_s, place.shard))
        yield channels
    finally:
        for channel in channels:
            await channel.close()


_ACTIONS: Final = {"create": _create, "list": _list, "revoke": _revoke}
