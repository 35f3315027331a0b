"""The agent's Unix socket: one JSON object a line, one answer a line. No client can hold up another or the agent.

Nothing blocks: slow clients run into their deadline, long lines are cut off, busy users run out of their share.
"""

from __future__ import annotations

import json
import logging
import selectors
import socket
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from slurm_power.daemons.node_agent_rates import UserRates
from slurm_power.daemons.unix_listener import listen_at
from slurm_power.gpu.wire import MAX_LINE_BYTES
from slurm_power.ports.clock import Clock

log = logging.getLogger(__name__)

MAX_CLIENTS = 128
MAX_CLIENTS_OF_ONE_USER = 16
_CHUNK_BYTES = 64 * 1024
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid

Answer = Callable[[bytes, int], Mapping[str, object]]


@dataclass(slots=True)
class _Client:
    connection: socket.socket
    uid: int
    deadline_s: float
    received: bytearray = field(default_factory=bytearray)
    to_send: bytearray = field(default_factory=bytearray)
    closing: bool = False  # once `to_send` is gone


class LocalServer:
    def __init__(
        self,
        path: Path,
        answer: Answer,
        *,
        clock: Clock,
        timeout_s: float,
        requests_per_s: float,
        peer_uid: Callable[[socket.socket], int] | None = None,
    ) -> None:
        """Raise ConfigError when the socket cannot be had: see listen_at. `answer` gets a line and the peer's uid."""
        self._path = path
        self._answer = answer
        self._clock = clock
        self._timeout_s = timeout_s
        self._rates = UserRates(requests_per_s)
        self._peer_uid = peer_uid or peer_uid_of
        self._listener = listen_at(path)
        self._woken, self._waker = socket.socketpair()
        for each in (self._woken, self._waker):
            each.setblocking(False)
        self._clients: dict[int, _Client] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._woken, selectors.EVENT_READ, self._drain)

    def wake(self) -> None:
        """Let `serve` return soon; may be called from any thread and from a signal handler."""
        with suppress(OSError):  # full: it is awake already
            self._waker.send(b"w")

    def serve(self, *, until_s: float) -> None:
        """Answer clients until then, or until `wake`. One pass over the ready clients is always made."""
        woken = False
        while not woken:
            now_s = self._clock.now_s()
            deadlines = [client.deadline_s for client in self._clients.values()]
            wait_s = max(0.0, min([until_s, *deadlines]) - now_s)
            for key, events in self._selector.select(wait_s):
                woken = woken or key.fileobj is self._woken
                key.data(events)
            self._drop_late()
            if self._clock.now_s() >= until_s:
                return

    def close(self) -> None:
        for number in list(self._clients):
            self._drop(number)
        self._selector.close()
        for each in (self._listener, self._woken, self._waker):
            each.close()
        self._path.unlink(missing_ok=True)

    def _accept(self, _events: int) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            log.warning("%s: cannot accept: %s", self._path, error)
            return
        connection.setblocking(False)
        client = _Client(connection, self._peer_uid(connection), self._clock.now_s() + self._timeout_s)
        if not self._has_room_for(client.uid):
            connection.close()
            return
        number = connection.fileno()
        self._clients[number] = client
        self._selector.register(connection, selectors.EVENT_READ, lambda events: self._ready(number, events))

    def _has_room_for(self, uid: int) -> bool:
        """Users cannot crowd out Slurm: root always gets in."""
        counts = Counter(client.uid for client in self._clients.values())
        others = len(self._clients) - counts[0]
        return uid == 0 or (counts[uid] < MAX_CLIENTS_OF_ONE_USER and others < MAX_CLIENTS)

    def _ready(self, number: int, events: int) -> None:
        client = self._clients.get(number)
        if client is None:
            return
        try:
            if events & selectors.EVENT_READ:
                self._receive(client)
            self._send(client)
        except OSError:
            self._drop(number)
            return
        if client.closing and not client.to_send:
            self._drop(number)
            return
        # Who does not take its answers is not listened to: it cannot pile up answers here.
        self._selector.modify(
            client.connection,
            selectors.EVENT_WRITE if client.to_send else selectors.EVENT_READ,
            lambda events: self._ready(number, events),
        )

    def _receive(self, client: _Client) -> None:
        chunk = client.connection.recv(_CHUNK_BYTES)
        client.received += chunk
        client.closing = client.closing or not chunk
        while not client.closing or client.received:
            line, newline, rest = client.received.partition(b"\n")
            if not newline:
                break
            client.received = rest
            self._answer_line(client, bytes(line))
            if client.closing and chunk:
                break
        if len(client.received) > MAX_LINE_BYTES:
            self._refuse(client, f"a line may have {MAX_LINE_BYTES} bytes")

    def _answer_line(self, client: _Client, line: bytes) -> None:
        now_s = self._clock.now_s()
        if not self._rates.take(client.uid, 1, now_s=now_s):
            self._refuse(client, "too many requests")
            return
        answer = self._answer(line, client.uid)
        client.to_send += json.dumps(answer).encode() + b"\n"
        client.deadline_s = now_s + self._timeout_s

    def _refuse(self, client: _Client, reason: str) -> None:
        client.received.clear()
        client.to_send += json.dumps({"ok": False, "error": reason}).encode() + b"\n"
        client.closing = True

    def _send(self, client: _Client) -> None:
        if client.to_send:
            with suppress(BlockingIOError):
                del client.to_send[: client.connection.send(client.to_send)]

    def _drop_late(self) -> None:
        now_s = self._clock.now_s()
        for number in [number for number, client in self._clients.items() if client.deadline_s <= now_s]:
            self._drop(number)

    def _drop(self, number: int) -> None:
        client = self._clients.pop(number)
        self._selector.unregister(client.connection)
        client.connection.close()

    def _drain(self, _events: int) -> None:
        with suppress(BlockingIOError):
            self._woken.recv(4096)


def peer_uid_of(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(raw)[1]
    return uid
