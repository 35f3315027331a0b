"""Any other rank's side of the roll call: find rank 0, wait for everybody, notice when one is gone."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from job_wrappers.training.lines import Lines
from job_wrappers.training.place import RankPlace
from training.errors import Unavailable

log = logging.getLogger(__name__)

_CONNECT_S, _ANSWER_S, _PAUSE_S = 2.0, 5.0, 0.2

AskNode = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Welcome:
    port: int
    """Of the store."""

    address: str
    """Where we reached rank 0."""

    seen_as: str
    """How other nodes see rank 0's node."""


class RollMember:
    def __init__(self, place: RankPlace, *, on_lost: Callable[[str], None]) -> None:
        """`on_lost(text)`: a rank, perhaps rank 0 itself, ended without a word. From the thread that listens."""
        self._place = place
        self._on_lost = on_lost
        self._address = ""
        self._early: list[dict[str, object]] = []  # came together with the first answer
        self._lines: Lines | None = None
        self._sending = threading.Lock()

    def join(self, *, timeout_s: float, ask_node: AskNode | None = None) -> Welcome:
        """Raise Unavailable when rank 0 does not answer, or is still waiting for others, when the time is over."""
        deadline_s = time.monotonic() + timeout_s
        lines = self._connect(deadline_s, addresses(self._place, ask_node or node_address))
        if lines is None:
            raise Unavailable(f"rank 0 on {self._place.nodes[0]} did not answer within {timeout_s:.0f} s")
        self._lines = lines
        messages = self._early
        while time.monotonic() < deadline_s:
            for message in messages:
                if "lost" in message:
                    raise Unavailable(str(message["lost"]))
                if "welcome" in message:
                    threading.Thread(target=self._listen_on, args=(lines,), name="roll-call", daemon=True).start()
                    return Welcome(int(str(message["welcome"])), self._address, str(message["address"]))
            messages = self._received(lines)
        raise Unavailable(f"rank 0 on {self._place.nodes[0]} was still waiting for others after {timeout_s:.0f} s")

    @property
    def joined(self) -> bool:
        return self._lines is not None

    @property
    def local_address(self) -> str | None:
        return None if self._lines is None else str(self._lines.connection.getsockname()[0]).removeprefix("::ffff:")

    def send_joules(self, joules: object) -> None:
        self._send({"joules": joules})

    def leave(self, failed: str | None = None) -> None:
        """Say that we end in order, or why not. The connection stays open: its end is the end of this process."""
        self._send({"bye": True} if failed is None else {"failed": failed})

    def _send(self, message: dict[str, object]) -> None:
        with self._sending:
            if self._lines is not None:
                self._lines.send(message)

    def _received(self, lines: Lines) -> list[dict[str, object]]:
        messages = lines.receive()
        if messages is None:
            raise Unavailable(f"rank 0 on {self._place.nodes[0]} went away before all had come")
        return messages

    def _connect(self, deadline_s: float, found: Sequence[str]) -> Lines | None:
        while time.monotonic() < deadline_s:
            for address in found:
                for port in self._place.ports:
                    lines = self._try(address, port)
                    if lines is not None:
                        self._address = address
                        return lines
            time.sleep(_PAUSE_S)
        return None

    def _try(self, address: str, port: int) -> Lines | None:
        """A connection that rank 0 of this very start answers; None for nobody and for strangers."""
        try:
            lines = Lines(socket.create_connection((address, port), timeout=_CONNECT_S))
        except OSError:
            return None
        place = self._place
        lines.send({"hello": place.key, "rank": place.rank, "node": place.node_name, "pid": os.getpid()})
        lines.connection.settimeout(_ANSWER_S)
        answer = lines.receive()
        if answer and answer[0].get("here") == place.key:
            self._early = answer[1:]
            return lines
        lines.close()
        return None

    def _listen_on(self, lines: Lines) -> None:
        while True:
            messages = lines.receive()
            if messages is None:
                self._on_lost(f"rank 0 ({self._place.nodes[0]}) is gone")
                return
            for message in messages:
                if "lost" in message:
                    self._on_lost(str(message["lost"]))
                    return


def addresses(place: RankPlace, ask_node: AskNode) -> list[str]:
    """Node names that resolve are taken as they are; for others Slurm knows the address (NodeAddr)."""
    found = [address for address in place.master_addresses if _resolves(address)]
    if place.master_addresses[0] not in found:
        known = ask_node(place.nodes[0])
        found = [known, *found] if known and known not in found else found
    return found or list(place.master_addresses)


def node_address(node: str) -> str | None:
    """NodeAddr of a node as slurmctld has it; None when nobody can tell."""
    try:
        done = subprocess.run(
            ["scontrol", "-o", "show", "node", node], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("scontrol show node %s: %s", node, error)
        return None
    match = re.search(r"\bNodeAddr=(\S+)", done.stdout)
    return match.group(1) if match else None


def _resolves(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, None))
    except OSError:
        return False
