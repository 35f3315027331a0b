"""/metrics of a node agent: the last text that its loop has published, and nothing else.

One connection at a time, each with a deadline: whoever holds one delays other readers of metrics, never the agent.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer

from slurm_power.errors import Unavailable
from slurm_power.monitoring.openmetrics import CONTENT_TYPE

log = logging.getLogger(__name__)

CLIENT_TIMEOUT_S = 2.0


class MetricsListener:
    """Raise Unavailable when the address is taken. `max_age_s`: an older text is not handed out: the agent hangs."""

    def __init__(self, host: str, port: int, *, max_age_s: float, now_s: Callable[[], float]) -> None:
        self._max_age_s, self._now_s = max_age_s, now_s
        self._text: tuple[bytes, float] | None = None
        try:
            self._server = HTTPServer((host, port), self._handler())
        except OSError as cause:
            raise Unavailable(f"metrics: cannot listen on {host}:{port}: {cause.strerror}") from cause
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def publish(self, text: str) -> None:
        self._text = (text.encode(), self._now_s())

    def close(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def _fresh_text(self) -> bytes | None:
        latest = self._text
        return None if latest is None or self._now_s() - latest[1] > self._max_age_s else latest[0]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fresh_text = self._fresh_text

        class Handler(BaseHTTPRequestHandler):
            timeout = CLIENT_TIMEOUT_S
            server_version, sys_version = "slurm-power", ""

            def do_GET(self) -> None:
                if self.path != "/metrics":
                    self.send_error(404)
                    return
                text = fresh_text()
                if text is None:
                    self.send_error(503, "the agent has taken no sample lately")
                    return
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                log.debug(format, *args)

        return Handler
