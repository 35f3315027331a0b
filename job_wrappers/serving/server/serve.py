"""Runs the HTTP service until it is told to end: on a TCP port, and on a Unix socket for whoever owns the process."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from job_wrappers.serving.server.app import build_app
from job_wrappers.serving.server.engine_client import EngineClient
from job_wrappers.serving.server.exchange import Desk
from job_wrappers.serving.server.listeners import OwnersProtocol, bind, bind_unix

__all__ = ["HttpServer", "ServeOptions", "Service", "bind"]

DRAIN_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_LAST_WORDS_S = 1.0
"""For answers that are being written when all has to end."""

_ECHO_S = 1.0
"""scancel signals the tasks, and srun, which passes it on: a second signal within this is the first one again."""

_LOOK_S = 0.05
_KEEP_ALIVE_S = 60
"""Longer than clients keep an idle connection: they would send into one that is just being closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    sock: socket.socket
    """Bound; see `bind`."""

    unix_socket: Path | None
    token: str | None
    drain_s: float
    """How long running requests may take after the wish to end."""


class Service:
    """Its first signal drains: new requests are answered with 503, running ones may end. The second ends at once."""

    def __init__(self, engine: EngineClient, options: ServeOptions, *, say: Callable[[str], None]) -> None:
        self._engine, self._options, self._say = engine, options, say
        self._desk = Desk(engine)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._servers: list[HttpServer] = []
        self._failed: str | None = None
        self._signalled_at_s = 0.0
        self.ended_by: signal.Signals | None = None
        """The first signal that came."""

        self._drain: asyncio.Task[None] | None = None

    def run(self) -> str | None:
        """Blocks, on the main thread. None: ended as asked; else what went wrong."""
        asyncio.run(self._serve())
        return self._failed

    def crash(self, text: str) -> None:
        """From any thread, also before `run`: let the last answers go, and end."""
        self._failed = text
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._end, text)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        for number in DRAIN_SIGNALS:
            signal.signal(number, self._hear_signal)
        _allow_many_connections()
        options = self._options
        self._servers = [HttpServer(build_app(self._desk, token=options.token))]
        socks = [options.sock]
        try:
            if options.unix_socket is not None:
                socks.append(bind_unix(options.unix_socket))
                owners = build_app(self._desk, token=None, trusted=True)
                self._servers.append(HttpServer(owners, protocol=OwnersProtocol))
            if self._failed is None:
                running = zip(self._servers, socks, strict=True)
                await asyncio.gather(*(server.serve(sockets=[sock]) for server, sock in running))
        finally:
            for sock in socks:
                sock.close()
            if len(socks) > 1 and options.unix_socket is not None:
                options.unix_socket.unlink(missing_ok=True)

    def _hear_signal(self, number: int, frame: object) -> None:
        """Not the loop's own way, which would leave the default behind: a late signal would kill who tidies up."""
        assert self._loop is not None, "set before"
        with contextlib.suppress(RuntimeError):  # all has ended
            self._loop.call_soon_threadsafe(self._on_signal, number)

    def _on_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        if self.ended_by is not None:
            if time.monotonic() - self._signalled_at_s > _ECHO_S:
                self._say(f"{name} again: ending at once")
                self._stop(at_once=True)
            return
        self.ended_by, self._signalled_at_s = signal.Signals(number), time.monotonic()
        self._engine.drain()
        self._say(f"{name}: draining, {self._engine.unfinished()} requests run, {self._options.drain_s:g} s at most")
        self._drain = asyncio.ensure_future(self._drained())

    async def _drained(self) -> None:
        until_s = time.monotonic() + self._options.drain_s
        while (self._desk.open or self._engine.unfinished()) and time.monotonic() < until_s:
            await asyncio.sleep(_LOOK_S)
        if self._desk.open:
            self._say(f"{len(self._desk.open)} requests took too long: ending them")
        self._end("the server has ended")

    def _end(self, text: str) -> None:
        self._desk.end_all(text)
        self._stop(at_once=False)

    def _stop(self, *, at_once: bool) -> None:
        for server in self._servers:
            server.should_exit, server.force_exit = True, at_once


class HttpServer(uvicorn.Server):
    """Signals are ours; nothing is logged but errors."""

    def __init__(self, app: Starlette, *, protocol: type[asyncio.Protocol] | None = None) -> None:
        config = uvicorn.Config(
            app,
            http=protocol or "h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(_LAST_WORDS_S),
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _allow_many_connections() -> None:
    """A queue of a thousand requests is a thousand open files; shells allow 1024 unless one asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
