"""Requests to serving instances over HTTP/1.1, passed on byte by byte as they come.

Of its own, because the router must not add milliseconds: general clients cost one to twenty of CPU per request at 500 a
second on this machine (docs/measurements.md). It parses with httptools and knows only what instances need: POST
with a length, keep-alive, bodies of either framing, and that a reader who is slow slows the writer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from typing import cast
from urllib.parse import urlsplit

import httptools

from slurm_power.errors import ConfigError, Unavailable

_MOST_HEAD_BYTES = 64 * 1024
_PAUSE_BYTES, _RESUME_BYTES = 256 * 1024, 64 * 1024
_KEPT_PER_INSTANCE = 256
_CONNECT_S = 5.0


class HttpInstanceStreams:
    """Connections are kept and used again, by address."""

    def __init__(self, *, silence_s: float = 300.0) -> None:
        """`silence_s`: an answer that is silent for so long has broken off."""
        self._silence_s = silence_s
        self._busy: set[_Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._idle: dict[tuple[str, int], deque[_Connection]] = {}

    async def send(self, url: str, path: str, body: bytes) -> _Connection:
        host, port = _address(url)
        request = _head(host, port, path, len(body)) + body
        kept = self._idle.get((host, port))
        while kept:
            connection = kept.pop()
            if connection.usable:
                try:
                    await connection.ask(request)
                    return connection
                except _ClosedUnanswered:  # it was closed while nobody looked: no answer had begun
                    continue
        connection = await self._connect(host, port)
        await connection.ask(request)
        return connection

    def kept(self) -> int:
        """Idle connections."""
        return sum(map(len, self._idle.values()))

    def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        for kept in self._idle.values():
            for connection in kept:
                connection.hang_up()
        self._idle.clear()

    async def _connect(self, host: str, port: int) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, made = await loop.create_connection(lambda: _Connection(self, (host, port)), host, port)
        except (OSError, TimeoutError) as cause:
            raise Unavailable(f"{host}:{port}: {cause or 'no answer in time'}") from cause
        return made

    def keep(self, connection: _Connection) -> None:
        kept = self._idle.setdefault(connection.address, deque())
        if len(kept) < _KEPT_PER_INSTANCE:
            kept.append(connection)
        else:
            connection.hang_up()

    def forget(self, connection: _Connection) -> None:
        kept = self._idle.get(connection.address)
        if kept is None:
            return
        if connection in kept:
            kept.remove(connection)
        if not kept:
            del self._idle[connection.address]

    def watch(self, connection: _Connection) -> None:
        """One timer for all, not one for each part of each answer."""
        self._busy.add(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(self._silence_s / 4, self._sweep)

    def unwatch(self, connection: _Connection) -> None:
        self._busy.discard(connection)

    def _sweep(self) -> None:
        self._sweeper = None
        loop = asyncio.get_running_loop()
        for connection in list(self._busy):
            connection.end_if_silent(loop.time() - self._silence_s)
        if self._busy:
            self._sweeper = loop.call_later(self._silence_s / 4, self._sweep)


class _ClosedUnanswered(Unavailable):
    pass


class _Connection(asyncio.Protocol):
    """Also the answer that is on it: an instance answers one request of a connection at a time."""

    def __init__(self, owner: HttpInstanceStreams, address: tuple[str, int]) -> None:
        self.address = address
        self.status = 0
        self.headers: Mapping[bytes, bytes] = {}
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._lost: str | None = None
        self._paused = False
        self._busy = False
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._seen: dict[bytes, bytes] = {}
        self._parts: deque[bytes] = deque()
        self._held_bytes = self._head_bytes = 0
        self._has_head = self._complete = self._keeps = False
        self._waiter: asyncio.Future[None] | None = None
        self._waits_since_s = 0.0

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> None:
        """Returns with the head of the answer."""
        assert self._transport is not None, "connected"
        self._reset()
        self._busy = True
        self._owner.watch(self)
        self._transport.write(request)
        try:
            await self._head()
        except BaseException:  # whoever asked may have left: nobody else knows this connection
            self.close()
            raise

    async def _head(self) -> None:
        while not self._has_head:
            if self._lost is not None:
                error = Unavailable if self._head_bytes else _ClosedUnanswered
                raise error(f"{self.address[0]}:{self.address[1]}: {self._lost}")
            await self._wait()

    async def part(self) -> bytes | None:
        while not self._parts:
            if self._complete:
                self._release()
                return None
            if self._lost is not None:
                raise Unavailable(f"{self.address[0]}:{self.address[1]}: {self._lost}")
            await self._wait()
        part = self._parts.popleft() if len(self._parts) == 1 else self._joined()
        self._held_bytes -= len(part)
        if self._paused and self._held_bytes < _RESUME_BYTES and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return part

    def close(self) -> None:
        if not self._busy:
            return
        if self._complete and not self._parts:
            self._release()
        else:
            self._busy = False
            self._owner.unwatch(self)
            self.hang_up()

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _release(self) -> None:
        if self._busy:
            self._busy = False
            self._owner.unwatch(self)
            if self._keeps and self.usable and not self._paused:
                self._owner.keep(self)
            else:
                self.hang_up()

    def _joined(self) -> bytes:
        joined = b"".join(self._parts)
        self._parts.clear()
        return joined

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiter, self._waits_since_s = loop.create_future(), loop.time()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def end_if_silent(self, before_s: float) -> None:
        if self._waiter is not None and self._waits_since_s < before_s:
            self._lost = "silent for too long"
            self.hang_up()
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has its methods and not its class

    def data_received(self, data: bytes) -> None:
        if not self._busy:  # nothing was asked
            self.hang_up()
            return
        if not self._has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as cause:
            self._lost = f"no HTTP: {cause}"
            self.hang_up()
        if not self._has_head and self._head_bytes > _MOST_HEAD_BYTES:
            self._lost = "an answer without end of its head"
            self.hang_up()
        if self._held_bytes > _PAUSE_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._owner.unwatch(self)
        if self._lost is None:
            self._lost = str(exc) if exc is not None else "closed"
        if not self._busy:
            self._owner.forget(self)
        self._wake()

    # --- the parser's calls

    def on_header(self, name: bytes, value: bytes) -> None:
        self._seen[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.status, self.headers = self._parser.get_status_code(), self._seen
        self._has_head = self.status >= 200
        self._keeps = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        self._held_bytes += len(body)

    def on_message_complete(self) -> None:
        self._complete = self._has_head


@lru_cache(maxsize=1024)
def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        raise ConfigError(f"{url[:200]}: must be http://HOST:PORT")
    return parts.hostname, parts.port or 80


def _head(host: str, port: int, path: str, length: int) -> bytes:
    shown = f"[{host}]" if ":" in host else host
    return (
        f"POST {path} HTTP/1.1\r\nHost: {shown}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode("latin-1")
