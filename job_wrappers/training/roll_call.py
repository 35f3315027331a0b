"""Rank 0's side of the roll call: who has come, who is missing, who is gone.

Every other rank keeps one connection to rank 0 while it lives, so the end of a process shows at once and by name,
whatever it waits for. Trust is that of the cluster's network, as for gloo and NCCL themselves.

    connect, {"hello": key, rank, node, pid} --> {"here": key} ... all have come ... {"welcome": port, address}
    {"joules": ...} now and then --> ;  {"failed": text} or {"bye": true}, then the process ends
    <-- {"lost": text} when any rank ended without a word
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from job_wrappers.training.lines import Lines
from job_wrappers.training.place import PORT_TRIES, RankPlace
from training.errors import Unavailable

log = logging.getLogger(__name__)

_POLL_S = 0.2
_REMIND_S = 10.0


@dataclass(slots=True)
class _Member:
    lines: Lines
    rank: int
    node: str
    pid: int
    left: bool = False

    @property
    def name(self) -> str:
        return f"rank {self.rank} ({self.node}, pid {self.pid})"


class RollCall:
    """`on_lost(text)` when a rank ended without a word, `on_failed(member, text)` when it said why, `on_joules(rank,
    message)` for its energy; all from the thread that listens."""

    def __init__(
        self,
        place: RankPlace,
        *,
        on_lost: Callable[[str], None],
        on_failed: Callable[[str, str], None],
        on_joules: Callable[[int, Any], None],
    ) -> None:
        """Raise Unavailable when no port is free."""
        self._place = place
        self._on_lost, self._on_failed, self._on_joules = on_lost, on_failed, on_joules
        self._listener, self.port = _listen(place)
        self._members: dict[int, _Member] = {}
        self._changed = threading.Condition()
        self._welcomed = False
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._listen_on, name="roll-call", daemon=True)
        self._thread.start()

    def wait_for_all(self, *, timeout_s: float) -> None:
        """Raise Unavailable, naming who is missing."""
        deadline_s, remind_s = time.monotonic() + timeout_s, time.monotonic() + _REMIND_S
        with self._changed:
            while missing := self._missing():
                now_s = time.monotonic()
                if now_s >= deadline_s:
                    break
                if now_s >= remind_s:
                    log.warning("waiting for %s", self._absent(missing))
                    remind_s = now_s + _REMIND_S
                self._changed.wait(min(remind_s, deadline_s) - now_s)
        if missing:
            text = f"{self._absent(missing)} did not come within {timeout_s:.0f} s"
            self._tell({"lost": text})
            raise Unavailable(text)

    def welcome(self, port: int) -> None:
        """Let everybody begin; `port` is the store's."""
        with self._changed:
            self._welcomed = True
        self._tell({"welcome": port, "address": self.address()})

    def address(self) -> str:
        """Of this node, as other nodes see it; loopback when nobody came from elsewhere."""
        seen = [local_address(member.lines.connection) for member in self._present()]
        return next((address for address in seen if not is_loopback(address)), "127.0.0.1")

    def wait_until_gone(self, *, timeout_s: float) -> bool:
        """Wait for the processes of all other ranks to end: then no exit code of ours can cut theirs short."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._members, timeout=timeout_s)

    def tell_lost(self, text: str) -> None:
        self._tell({"lost": text})

    def close(self) -> None:
        self._stopping = True
        self._thread.join(10 * _POLL_S)
        for member in self._present():
            member.lines.close()
        self._listener.close()
        self._selector.close()

    def _missing(self) -> list[int]:
        return [rank for rank in range(1, self._place.world_size) if rank not in self._members]

    def _absent(self, missing: list[int]) -> str:
        came = {member.node for member in self._members.values()} | {self._place.node_name}
        silent = [node for node in self._place.nodes if node not in came]
        ranks = f"rank{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing[:16]))}"
        more = " and more" if len(missing) > 16 else ""
        where = f" (nobody from {', '.join(silent[:16])})" if silent else ""
        return f"{ranks}{more}{where}"

    def _present(self) -> list[_Member]:
        with self._changed:
            return list(self._members.values())

    def _tell(self, message: dict[str, object]) -> None:
        for member in self._present():
            member.lines.send(message)

    # The listening thread

    def _listen_on(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select(_POLL_S):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._read(key.data)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            log.warning("roll call: cannot accept: %s", error)
            return
        visitor = Lines(connection)
        self._selector.register(visitor, selectors.EVENT_READ, visitor)

    def _read(self, lines: Lines) -> None:
        messages = lines.receive()
        member = next((one for one in self._present() if one.lines is lines), None)
        for message in messages or []:
            if member is None:
                member = self._greet(lines, message)
                messages = messages if member is not None else None
            else:
                self._hear(member, message)
        if messages is None:
            self._selector.unregister(lines)
            lines.close()
            if member is not None:
                self._gone(member)

    def _greet(self, lines: Lines, message: dict[str, Any]) -> _Member | None:
        rank, key = message.get("rank"), message.get("hello")
        if key != self._place.key or not isinstance(rank, int) or not 0 < rank < self._place.world_size:
            return None
        member = _Member(lines, rank, str(message.get("node"))[:64], int(message.get("pid", 0)))
        with self._changed:
            if rank in self._members or self._welcomed:
                log.warning("roll call: %s came twice", member.name)
                return None
            lines.send({"here": key})
            self._members[rank] = member
            self._changed.notify_all()
        return member

    def _hear(self, member: _Member, message: dict[str, Any]) -> None:
        if "joules" in message:
            self._on_joules(member.rank, message["joules"])
        if "failed" in message:
            self._on_failed(member.name, str(message["failed"]))
        if "failed" in message or "bye" in message:
            member.left = True

    def _gone(self, member: _Member) -> None:
        with self._changed:
            self._members.pop(member.rank, None)
            self._changed.notify_all()
            lost = self._welcomed and not member.left
        if lost:
            text = f"{member.name} is gone"
            self._on_lost(text)
            self.tell_lost(text)


def local_address(connection: socket.socket) -> str:
    """Of our end; an IPv4 address in IPv6's clothes is undressed."""
    return str(connection.getsockname()[0]).removeprefix("::ffff:")


def is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _listen(place: RankPlace) -> tuple[socket.socket, int]:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    for port in place.ports:
        try:
            return socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=1024), port
        except OSError:
            continue  # somebody else's; the other ranks try the next one too
    raise Unavailable(f"{place.node_name}: none of {PORT_TRIES} ports from {place.ports[0]} on is free")
