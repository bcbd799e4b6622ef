"""What every command that talks to a node takes, and shows there: a token, and whom it trusts to vouch for the node.

`main` adds these options to every command that has ``--connect`` or ``--placement``, so that none is forgotten; and has
the process show what they say wherever it connects. A token is never an argument: others on the machine could see it.
"""

import argparse
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bezant.net.access.settings import NodeSecurity

TOKEN_VARIABLE: Final = "BEZANT_TOKEN"
_TALKS_TO_NODES: Final = frozenset({"--connect", "--placement"})
_SERVES: Final = "--cluster-token-file"
MEASURES: Final = "bench"
"""The one command that asks for no token: it measures nodes that are to cost no more than the work itself."""


def add_access_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser, and those of its actions, that talk to nodes and do not serve themselves."""
    options = {option for action in parser._actions for option in action.option_strings}
    if options & _TALKS_TO_NODES and _SERVES not in options:
        group = parser.add_argument_group("access")
        group.add_argument(
            "--token-file",
            metavar="FILE",
            help=f"a file with the token that the node asks for (default: what {TOKEN_VARIABLE} has, if anything)",
        )
        group.add_argument(
            "--tls", action="store_true", help="by TLS, with a node that the system's authorities vouch for"
        )
        group.add_argument(
            "--tls-ca", metavar="FILE", help="by TLS, with a node that this authority's certificate vouches for"
        )
        group.add_argument("--tls-cert", metavar="FILE", help="a certificate to show to the node, which needs none")
        group.add_argument("--tls-key", metavar="FILE", help="the key of that certificate")
    for below in _parsers_below(parser):
        add_access_arguments(below)


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
    given = (arguments.token_file, token, arguments.tls, arguments.tls_ca, arguments.tls_cert, arguments.tls_key)
    if not any(given):
        return
    from bezant.net.access.credentials import make_credentials, read_token_file, use_credentials

    use_credentials(
        make_credentials(
            token=read_token_file(arguments.token_file) if arguments.token_file else token,
            tls=arguments.tls,
            ca=arguments.tls_ca,
            certificate=arguments.tls_cert,
            key=arguments.tls_key,
        )
    )


def add_security_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a node, or a reader by itself, is told of its own security."""
    group = parser.add_argument_group("access")
    group.add_argument(
        "--tls-cert", metavar="FILE", help="talk by TLS alone, with this certificate for the node's hosts"
    )
    group.add_argument("--tls-key", metavar="FILE", help="the key of that certificate")
    group.add_argument(
        "--tls-ca",
        metavar="FILE",
        help="the certificate of the authority that signs for the nodes of the cluster, and for nothing else: nodes"
        " show each other certificates of it",
    )
    group.add_argument(
        _SERVES,
        metavar="FILE",
        help="a file with a token that all nodes of the cluster share, and that may do everything, so also make the"
        " first of those that clients have; make one: bezant tokens generate",
    )
    group.add_argument(
        "--insecure-listen",
        action="store_true",
        help="listen at addresses that other machines can reach without TLS or tokens: the network is trusted",
    )


def security_of(arguments: argparse.Namespace) -> "NodeSecurity":
    """What the arguments of `add_security_arguments` say."""
    from bezant.net.access.settings import NodeSecurity

    return NodeSecurity(
        tls_certificate=arguments.tls_cert or "",
        tls_key=arguments.tls_key or "",
        tls_ca=arguments.tls_ca or "",
        cluster_token_file=arguments.cluster_token_file or "",
        insecure_listen=arguments.insecure_listen,
    )


def security_words(arguments: argparse.Namespace) -> list[str]:
    """The same as words of a command line."""
    values = ("tls_cert", "tls_key", "tls_ca", "cluster_token_file")
    given = [(value, getattr(arguments, value)) for value in values]
    words = [f"--{value.replace('_', '-')}={text}" for value, text in given if text]
    return [*words, *(["--insecure-listen"] if arguments.insecure_listen else [])]
