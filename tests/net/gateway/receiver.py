"""Somebody for webhooks to tell."""

import http.server
import json
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from ..access.authority import Signed

LATE_S = 60
Heard = tuple[dict[str, str], bytes]


class Receiver:
    """Somebody who is told: answers as it is told to, and keeps all that it has heard."""

    def __init__(self, signed: Signed | None = None) -> None:
        """With a certificate it listens to TLS alone."""
        self.heard: list[Heard] = []
        self.answer: Callable[[Heard], int] = lambda _: 204
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                told = ({name.lower(): value for name, value in self.headers.items()}, body)
                receiver.heard.append(told)
                status = receiver.answer(told)
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", receiver.url + "/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if signed is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(signed.certificate, signed.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'' if signed is None else 's'}://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def await_heard(self, count: int) -> list[Heard]:
        """What it has heard, once that is so much."""
        end_s = time.monotonic() + LATE_S
        while len(self.heard) < count:
            assert time.monotonic() < end_s, f"{len(self.heard)} of {count} have come"
            time.sleep(0.01)
        return list(self.heard)

    def transfers(self) -> list[str]:
        """The ids of transfers that it was told of, in order."""
        return [json.loads(body)["data"]["transaction_id"] for _, body in self.heard]
