"""Runs the router on a port: uvicorn with httptools, with uvloop where it is there. Heads of requests are bounded."""

from __future__ import annotations

import contextlib
import gc
import resource
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from slurm_power.errors import Unavailable

MOST_HEAD_BYTES = 64 * 1024
_KEEP_ALIVE_S = 75
_GRACE_S = 30
_FILES, _BACKLOG = 65_536, 4096
_COLLECT_AFTER = 10_000


class BoundedProtocol(HttpToolsProtocol):
    """The parser itself would collect headers without end."""

    _head_bytes = 0

    def on_message_begin(self) -> None:
        self._head_bytes = 1
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_bytes:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES and self.transport is not None:
                self.transport.close()


class RouterServer(uvicorn.Server):
    """Signals are the program's own."""

    def __init__(self, app: Any) -> None:
        allow_many_connections()
        super().__init__(
            uvicorn.Config(
                app,
                http=BoundedProtocol,
                loop="none",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """Before anything starts, so that a taken port is one clear line."""
    try:
        return socket.create_server((host, port), backlog=_BACKLOG, reuse_port=False)
    except OSError as cause:
        raise Unavailable(f"cannot listen on {host}:{port}: {cause.strerror}") from cause


def new_event_loop() -> Any:
    """uvloop's where it is installed: it halves what a request costs."""
    try:
        import uvloop
    except ImportError:
        import asyncio

        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def settle_memory() -> None:
    """Once all is loaded: what is there stays, so the collector need not look at it again and again, each time a pause
    of milliseconds in the middle of somebody's first token."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 50)


def allow_many_connections() -> None:
    """Each waiting request is an open file, and one more at its instance."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
