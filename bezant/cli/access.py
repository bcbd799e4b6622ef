"""What every command that talks to a node takes, and shows there: a token, and whom it trusts to vouch for the node.

`main` adds these options to every command that has ``--connect`` or ``--placement``, so that none is forgotten; and has
the process show what they say wherever it connects. A token is never an argument: others on the machine could see it.
"""

import argparse
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from bezant.cli.settings import Access
    from bezant.net.access.settings import NodeSecurity

TOKEN_VARIABLE: Final = "BEZANT_TOKEN"
_TALKS_TO_NODES: Final = frozenset({"--connect", "--placement"})
_SERVES: Final = "--cluster-token-file"
MEASURES: Final = "bench"
"""The one command that does without TLS: it measures nodes that are to cost no more than the work itself."""

_ACCESS: Final[dict[str, dict[str, Any]]] = {
    "--token-file": {
        "metavar": "FILE",
        "help": f"a file with the token that the node asks for (default: what {TOKEN_VARIABLE} has, if anything)",
    },
    "--tls": {"action": "store_true", "help": "by TLS, with a node that the system's authorities vouch for"},
    "--tls-ca": {"metavar": "FILE", "help": "by TLS, with a node that this authority's certificate vouches for"},
    "--tls-cert": {"metavar": "FILE", "help": "a certificate to show to the node, which needs none"},
    "--tls-key": {"metavar": "FILE", "help": "the key of that certificate"},
    "--insecure-connect": {
        "action": "store_true",
        "help": "show the token without TLS to other machines, too: the network is trusted",
    },
}
_WITHOUT_TLS: Final = ("--token-file", "--insecure-connect")


def add_access_arguments(parser: argparse.ArgumentParser, *, has_tls: bool = True) -> None:
    """Add the options to a parser, and those of its actions, that talk to nodes and do not serve themselves."""
    options = {option for action in parser._actions for option in action.option_strings}
    if options & _TALKS_TO_NODES and _SERVES not in options:
        group = parser.add_argument_group("access")
        for option, settings in _ACCESS.items():
            # A command that has settings of its own for it has them from there.
            if option not in options and (has_tls or option in _WITHOUT_TLS):
                group.add_argument(option, **settings)
    for below in _parsers_below(parser):
        add_access_arguments(below, has_tls=has_tls)


def _parsers_below(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from dict.fromkeys(action.choices.values())


def use_access(arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> None:
    """Have this process show what the arguments say, if they are of a command that talks to nodes.

    Raises `UsageError` for a token or files that are none.
    """
    if not hasattr(arguments, "token_file"):
        return
    token = environment.get(TOKEN_VARIABLE, "").strip()
    tls, ca, certificate, key = (getattr(arguments, name, None) for name in ("tls", "tls_ca", "tls_cert", "tls_key"))
    if not any((arguments.token_file, token, tls, ca, certificate, key)):
        return
    from bezant.net.access.credentials import make_credentials, read_token_file, use_credentials

    use_credentials(
        make_credentials(
            token=read_token_file(arguments.token_file) if arguments.token_file else token,
            tls=bool(tls),
            ca=ca or None,
            certificate=certificate,
            key=key,
            insecure=bool(getattr(arguments, "insecure_connect", False)),
        )
    )


def security_of(settings: "Access") -> "NodeSecurity":
    """What a node is told of its own security, as the network takes it."""
    from bezant.net.access.settings import NodeSecurity

    return NodeSecurity(
        tls_certificate=settings.tls_cert,
        tls_key=settings.tls_key,
        tls_ca=settings.tls_ca,
        cluster_token_file=settings.cluster_token_file,
        insecure_listen=settings.insecure_listen,
    )
