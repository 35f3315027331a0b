"""One encoder for all who watch: each part is asked for and turned into text once, then handed to every client.

A client has a short queue. One that does not empty it is dropped, never buffered for: its browser connects anew and
starts from the latest of each part.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool

from slurm_power.errors import Unavailable

log = logging.getLogger(__name__)

QUEUE_FRAMES = 8
"""What a client may lag behind; at a frame a second, so many seconds."""

MAX_CLIENTS = 64


@dataclass(frozen=True, slots=True)
class LivePart:
    """One named piece of the picture, asked for every `period_s` while somebody watches. None: nothing to show."""

    ask: Callable[[], Any]
    period_s: float


LiveParts = Mapping[str, LivePart]


class Client:
    """One watcher's end of the broadcast. `frames` ends with None."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE_FRAMES)
        self.dropped = False

    def offer(self, frame: bytes) -> bool:
        """False: it lags too far behind, and gets nothing more."""
        try:
            self.frames.put_nowait(frame)
        except asyncio.QueueFull:
            self.end()
            self.dropped = True
        return not self.dropped

    def end(self) -> None:
        """What it has not yet taken is thrown away."""
        while not self.frames.empty():
            self.frames.get_nowait()
        self.frames.put_nowait(None)


@dataclass(slots=True)
class _Latest:
    """A part's last text, and when it is asked for again."""

    frame: bytes = b""
    due_s: float = 0.0
    failed: str = field(default="")


class Broadcast:
    def __init__(self, parts: LiveParts, *, period_s: float = 1.0, now_s: Callable[[], float] = time.monotonic) -> None:
        self._parts, self._period_s, self._now_s = parts, period_s, now_s
        self._latest = {name: _Latest() for name in parts}
        self._clients: set[Client] = set()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = False
        self.encodings = 0

    @property
    def clients(self) -> int:
        return len(self._clients)

    async def join(self) -> Client:
        """A new client, with the latest of everything in its queue. Raise Unavailable when there are too many."""
        if self._ended or len(self._clients) >= MAX_CLIENTS:
            raise Unavailable(f"{len(self._clients)} watch already; no more than {MAX_CLIENTS} may")
        self._loop = asyncio.get_running_loop()
        client = Client()
        self._clients.add(client)
        known = b"".join(latest.frame for latest in self._latest.values())
        if known and self._task is not None:
            client.offer(known)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return client

    def leave(self, client: Client) -> None:
        self._clients.discard(client)

    def close(self) -> None:
        """From any thread: every stream ends, no new one begins."""
        self._ended = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end_all)

    def _end_all(self) -> None:
        for client in self._clients:
            client.end()
        self._clients.clear()

    async def _run(self) -> None:
        """Nobody watches: nothing is asked or encoded."""
        try:
            while self._clients:
                frame = await self.encode()
                if frame:
                    self._hand_out(frame)
                await asyncio.sleep(self._period_s)
        finally:
            self._task = None
            self._latest = {name: _Latest() for name in self._parts}  # the next watcher gets nothing stale

    def _hand_out(self, frame: bytes) -> None:
        for client in [client for client in self._clients if not client.offer(frame)]:
            log.info("a watcher of the dashboard is too slow and is dropped")
            self._clients.discard(client)

    async def encode(self) -> bytes:
        """The parts that are due and have changed, as one piece of an event stream; empty when there is none."""
        now_s, frames = self._now_s(), []
        for name, part in self._parts.items():
            latest = self._latest[name]
            if now_s < latest.due_s:
                continue
            latest.due_s = now_s + part.period_s - self._period_s / 2
            frame = await run_in_threadpool(self._encode_one, name, part, latest)
            if frame and frame != latest.frame:
                latest.frame = frame
                frames.append(frame)
        self.encodings += 1
        return b"".join(frames)

    def _encode_one(self, name: str, part: LivePart, latest: _Latest) -> bytes:
        """A part that cannot be told now keeps its last text; the others go on."""
        try:
            content = part.ask()
            text = "" if content is None else json.dumps(content, allow_nan=False, separators=(",", ":"))
        except Exception as failure:  # the page must live on when one view breaks
            if str(failure) != latest.failed:
                log.exception("the dashboard's part %s is broken", name)
            latest.failed = str(failure)
            return b""
        latest.failed = ""
        return f"event: {name}\ndata: {text}\n\n".encode() if text else b""


_USUAL_PERIOD_S = 2.0
_PERIODS_S = {"now": 1.0, "gpu_names": 10.0}


def live_parts(asks: Mapping[str, Callable[[], Any]]) -> dict[str, LivePart]:
    """By name on the stream: how often each is asked for."""
    return {name: LivePart(ask, _PERIODS_S.get(name, _USUAL_PERIOD_S)) for name, ask in asks.items()}
