"""A small Redfish service in this process: it answers each path with the JSON, or the failure, that it is told."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

DRIP_S = 0.05


class RedfishServer:
    """`with RedfishServer(certificate=..., user="u", password="p") as server: server.resources[path] = {...}`."""

    def __init__(self, *, certificate: Path | None = None, user: str = "", password: str = "") -> None:
        """`certificate`: PEM file of key and chain; None: plain HTTP."""
        self.resources: dict[str, Any] = {}  # path -> what is sent as JSON; bytes are sent as they are
        self.status: int | None = None  # instead of an answer
        self.silent = False  # takes the request and says nothing
        self.dripping = False  # one byte after the other
        self.hang_ups = 0  # so many of the next requests are answered by closing the connection
        self.requests = 0
        self.connections = 0
        self._wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode() if user else None
        self._stop = threading.Event()
        self._scheme = "http" if certificate is None else "https"
        self._server = _Server(("127.0.0.1", 0), _handler(self._answer), self._connected)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            # The handshake belongs to the connection's own thread: a client that breaks it off disturbs nobody.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> RedfishServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _connected(self) -> None:
        self.connections += 1

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests += 1
        if self.hang_ups > 0:
            self.hang_ups -= 1
            request.close_connection = True
            return
        while self.silent and not self._stop.is_set():
            time.sleep(DRIP_S)
        if self._wanted is not None and request.headers.get("Authorization") != self._wanted:
            self._send(request, 401, b"{}")
        elif self.status is not None:
            self._send(request, self.status, b"{}")
        elif request.path not in self.resources:
            self._send(request, 404, b"{}")
        else:
            resource = self.resources[request.path]
            self._send(request, 200, resource if isinstance(resource, bytes) else json.dumps(resource).encode())

    def _send(self, request: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        step = 1 if self.dripping else len(body)
        for start in range(0, len(body), max(1, step)):
            request.wfile.write(body[start : start + step])
            if self.dripping and self._stop.wait(DRIP_S):
                return


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], connected: Callable[[], None]
    ) -> None:
        super().__init__(address, handler)
        self._connected = connected

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connected()
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


def _handler(answer: Callable[[BaseHTTPRequestHandler], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10.0

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
