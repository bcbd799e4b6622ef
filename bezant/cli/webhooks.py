"""`bezant webhooks`: has a gateway tell other addresses what happens, over the gateway's own API."""

import argparse
import http.client
import json
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Final

from bezant.cli.access import TOKEN_VARIABLE
from bezant.cli.errors import CommandFailed
from bezant.cli.output import write_json, write_line, write_table
from bezant.cli.session import DEFAULT_TIMEOUT_S, add_json_argument, positive_seconds
from bezant.cli.settings import is_loopback

DEFAULT_GATEWAY: Final = "http://127.0.0.1:8080"
ANSWER_BYTES_MAX: Final = 64 << 20
"""Of an answer: dead letters of one webhook, as many as are kept, fit."""
_HEADINGS: Final = ("id", "address", "accounts", "currency", "kinds", "delivered", "problem")

# What each action asks: method, path behind that of the webhooks, and what it is about.
_ACTIONS: Final[dict[str, tuple[str, str, str]]] = {
    "list": ("GET", "", "List all webhooks."),
    "create": ("POST", "", "Have an address told of what happens from now on. Prints the secret, which is told once."),
    "show": ("GET", "/{id}", "Tell how a webhook does."),
    "delete": ("DELETE", "/{id}", "Tell a webhook nothing more, and forget it."),
    "test": ("POST", "/{id}/test", "Send a message that says nothing, and tell what came of it."),
    "rotate-secret": ("POST", "/{id}/secret", "Give it a new secret; the old one signs beside it for 24 hours."),
    "enable": ("POST", "/{id}/enable", "Go on with a webhook that was disabled."),
    "dead-letters": ("GET", "/{id}/dead-letters", "List the messages that were given up."),
    "replay": ("POST", "/{id}/dead-letters/{message}/replay", "Send a message that was given up once more."),
    "forget": ("DELETE", "/{id}/dead-letters/{message}", "Forget a message that was given up."),
}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant webhooks`."""
    parser = subparsers.add_parser("webhooks", description="Have a gateway tell other addresses what happens.")
    actions = parser.add_subparsers(dest="action", metavar="|".join(_ACTIONS), required=True)
    for name, (_, path, description) in _ACTIONS.items():
        action = actions.add_parser(name, description=description)
        if name == "create":
            action.add_argument("url", metavar="URL", help="where signed messages are sent by POST")
            action.add_argument("--account", metavar="NAME", action="append", default=[], help="of this account alone")
            action.add_argument("--currency", metavar="CODE", help="in this currency alone")
            action.add_argument("--kind", metavar="KIND", action="append", default=[], help="of this kind alone")
        if "{id}" in path:
            action.add_argument("id", metavar="ID", help="the id of the webhook")
        if "{message}" in path:
            action.add_argument("message", metavar="MESSAGE", help="the webhook-id of the message")
        action.add_argument(
            "--gateway", metavar="URL", default=DEFAULT_GATEWAY, help="the gateway (default: %(default)s)"
        )
        action.add_argument(
            "--gateway-token-file",
            metavar="FILE",
            help=f"a file with a token with the scope admin (default: what {TOKEN_VARIABLE} has, if anything)",
        )
        action.add_argument("--gateway-ca", metavar="FILE", help="whose signature its certificate has")
        action.add_argument(
            "--timeout", metavar="SECONDS", dest="timeout_s", type=positive_seconds, default=DEFAULT_TIMEOUT_S
        )
        add_json_argument(action)


def run(arguments: argparse.Namespace) -> int:
    """Ask the gateway."""
    method, path, _ = _ACTIONS[arguments.action]
    names = {name: urllib.parse.quote(getattr(arguments, name, ""), safe="") for name in ("id", "message")}
    body = None
    if arguments.action == "create":
        body = {"url": arguments.url, "accounts": arguments.account, "kinds": arguments.kind}
        body |= {"currency": arguments.currency} if arguments.currency else {}
    told = _ask(arguments, method, "/v1/webhooks" + path.format(**names), body)
    if arguments.json or arguments.action not in {"list", "create", "rotate-secret"}:
        write_json(told)
    elif arguments.action == "list":
        write_table(_HEADINGS, [_row(hook) for hook in told["webhooks"]])
    else:
        write_line(f"{told['webhook']['id']}  {told['secret']}")
    return 1 if told.get("delivered") is False else 0


def _row(hook: dict[str, Any]) -> list[str]:
    lists = (", ".join(hook["accounts"]), hook["currency"] or "", ", ".join(hook["kinds"]))
    problem = next((f"{state}: {hook[state]}" for state in ("disabled", "failing") if hook[state]), "")
    return [hook["id"], hook["url"], *lists, str(hook["delivered"]), problem]


def _ask(arguments: argparse.Namespace, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    """What the gateway answers. Raises `CommandFailed` with the problem that it tells."""
    headers = {"Content-Type": "application/json"}
    if not arguments.gateway.startswith(("http://", "https://")):
        raise CommandFailed(f"{arguments.gateway} is no gateway", f"name it as {DEFAULT_GATEWAY}")
    token = _token(arguments.gateway_token_file)
    if token:
        host = urllib.parse.urlsplit(arguments.gateway).hostname or ""
        if (
            arguments.gateway.startswith("http://")
            and is_loopback(f"[{host}]:1" if ":" in host else f"{host}:1") is not True
        ):
            raise CommandFailed("a token is not sent in clear to another machine", "name the gateway by https://")
        headers["Authorization"] = f"Bearer {token}"
    data = json.dumps(body).encode() if body is not None else b"" if method == "POST" else None
    request = urllib.request.Request(arguments.gateway.rstrip("/") + path, data, headers, method=method)
    try:
        with _opener(arguments.gateway_ca).open(request, timeout=arguments.timeout_s) as answer:
            told: dict[str, Any] = json.loads(answer.read(ANSWER_BYTES_MAX))
            return told
    except urllib.error.HTTPError as error:
        with error:
            raise CommandFailed(*_problem(error.read(ANSWER_BYTES_MAX), error.code)) from error
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        raise CommandFailed(f"{arguments.gateway} does not answer: {why}", "is it the address of a gateway?") from error
    except http.client.HTTPException as error:  # A node, for one, speaks something else.
        raise CommandFailed(f"{arguments.gateway} does not speak HTTP", "name the address of a gateway") from error


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Has whatever points elsewhere be a failure: the token is for this gateway."""

    def redirect_request(self, *_arguments: Any, **_named: Any) -> None:
        """Go nowhere."""


def _opener(ca_file: str | None) -> urllib.request.OpenerDirector:
    """Asks the gateway itself: no proxy that the environment names, and nobody that an answer points to."""
    context = ssl.create_default_context(cafile=ca_file)
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _NoRedirects
    )


def _problem(body: bytes, status: int) -> tuple[str, str]:
    try:
        told = json.loads(body)
        return f"{told['code']}: {told.get('detail') or told['title']}", "nothing was changed"
    except (ValueError, KeyError, TypeError):
        return f"the gateway answered {status}", "is it the address of a gateway?"


def _token(path: str | None) -> str:
    if path is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip()
    from bezant.net.access.credentials import read_token_file

    return read_token_file(path)
