"""Claim: what the command line shows a gateway goes to that gateway alone."""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from bezant.cli.webhooks import _opener


class Pointing(BaseHTTPRequestHandler):
    """Sends everybody elsewhere on the same server, and notes who comes."""

    def do_GET(self) -> None:
        self.server.paths.append(self.path)  # type: ignore[attr-defined]
        self.send_response(302)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def pointing() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Pointing) as server:
        server.paths = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_no_proxy_and_nobody_else_is_shown_a_token(pointing: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    request = urllib.request.Request(
        f"http://127.0.0.1:{pointing.server_port}/v1/webhooks", headers={"Authorization": "Bearer secret"}
    )
    with pytest.raises(urllib.error.HTTPError) as caught, _opener(None).open(request, timeout=10):
        pass
    caught.value.close()
    assert caught.value.code == 302
    assert pointing.paths == ["/v1/webhooks"]  # type: ignore[attr-defined]
