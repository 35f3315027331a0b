"""The line between rank 0 and each other rank: commands one way, answers the other; its end is the end of a rank.

Apart from the tensors' own connections, so that a rank that dies while nothing is computed is noticed at once, and so
that answers do not meet a collective. Messages are pickles, exchanged only after both sides proved to know the key.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import threading
from collections.abc import Callable, Sequence
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, wait
from typing import Any

from job_wrappers.serving.errors import RankLost
from job_wrappers.serving.ranks.commands import Answer, Command

JOIN_S = 120.0
_STORE_KEY = "slurm-power-serve/channel"
_HELLO_S = 10.0


class Channels:
    """Rank 0's side. `on_lost(text)` comes from the listening thread, once."""

    def __init__(self, world_size: int, store: Any, *, on_lost: Callable[[str], None]) -> None:
        """`store`: the rendezvous of torch.distributed, which also tells the others where we listen."""
        key = secrets.token_bytes(32)
        self.lost: str | None = None
        self._on_lost = on_lost
        self._closing = False
        self._sending = threading.Lock()
        self._answers: dict[int, dict[int, Answer]] = {}
        self._answered = threading.Condition()
        self._number = 0
        loopback = os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")
        with Listener(("127.0.0.1" if loopback else "", 0), authkey=key, backlog=world_size) as listener:
            port = listener.address[1]
            store.set(_STORE_KEY, f"{port}:{key.hex()}")
            self._ranks = _welcome(listener, world_size)
        threading.Thread(target=self._listen, name="ranks", daemon=True).start()

    def tell(self, command: Command) -> int:
        """To all ranks, in one order for all. The number that their answers will carry."""
        with self._sending:
            self._number += 1
            for rank, line in self._ranks.items():
                try:
                    line.send((self._number, command))
                except OSError:
                    self._lose(f"rank {rank} ended without a word")
                    raise RankLost(self.lost or "") from None
            return self._number

    def answers(self, number: int) -> list[Answer]:
        """Of all ranks, in rank order. Blocks until the last came; raises RankLost when one never will."""
        with self._answered:
            self._answered.wait_for(lambda: self.lost or len(self._answers.get(number, {})) == len(self._ranks))
            if self.lost is not None:
                raise RankLost(self.lost)
            return [answer for _, answer in sorted(self._answers.pop(number).items())]

    def why(self, within_s: float) -> str | None:
        """Which rank is gone; None when we did not hear of any in that time."""
        with self._answered:
            self._answered.wait_for(lambda: self.lost, timeout=within_s)
            return self.lost

    def close(self) -> None:
        """The other ranks may end from now on."""
        self._closing = True

    def _listen(self) -> None:
        by_line = {line: rank for rank, line in self._ranks.items()}
        while True:
            for line in wait(list(by_line)):
                assert isinstance(line, Connection)
                try:
                    answer = line.recv()
                except (EOFError, OSError):
                    self._lose(f"rank {by_line[line]} ended without a word")
                    return
                if answer.number == 0:
                    self._lose(f"rank {by_line[line]}: {answer.failed}")
                    return
                with self._answered:
                    self._answers.setdefault(answer.number, {})[by_line[line]] = answer
                    self._answered.notify_all()

    def _lose(self, text: str) -> None:
        with self._answered:
            if self.lost is not None or self._closing:
                return
            self.lost = text
            self._answered.notify_all()
        self._on_lost(text)


class MemberChannel:
    """Another rank's side. `receive` and `on_gone` end with rank 0."""

    def __init__(self, rank: int, store: Any) -> None:
        port, _, key = store.get(_STORE_KEY).decode().partition(":")
        self._line = Client((os.environ["MASTER_ADDR"], int(port)), authkey=bytes.fromhex(key))
        _keep_alive(self._line)
        self._line.send(rank)
        self._sending = threading.Lock()

    def receive(self) -> tuple[int, Command]:
        try:
            number, command = self._line.recv()
        except (EOFError, OSError):
            raise RankLost("rank 0 is gone") from None
        return number, command

    def answer(self, answer: Answer) -> None:
        with self._sending, contextlib.suppress(OSError):  # then `receive` will say it
            self._line.send(answer)

    def watch(self, on_gone: Callable[[], None]) -> None:
        """`on_gone` from a thread of its own as soon as rank 0 hangs up, whatever this rank is waiting for."""

        def run() -> None:
            poll = select.poll()
            poll.register(self._line.fileno(), select.POLLRDHUP)
            poll.poll()
            on_gone()

        threading.Thread(target=run, name="watch-rank-0", daemon=True).start()


def _welcome(listener: Listener, world_size: int) -> dict[int, Connection[Any, Any]]:
    found: dict[int, Connection[Any, Any]] = {}
    inner: socket.socket = listener._listener._socket  # type: ignore[attr-defined]  # has no timeout of its own
    inner.settimeout(JOIN_S)
    while len(found) < world_size - 1:
        try:
            line = listener.accept()
        except TimeoutError:
            raise RankLost(f"ranks {_missing(found, world_size)} did not come within {JOIN_S:.0f} s") from None
        except (OSError, EOFError, AuthenticationError):
            continue  # a stranger
        if line.poll(_HELLO_S):
            _keep_alive(line)
            found[line.recv()] = line
    return found


def _missing(found: Sequence[int] | dict[int, Any], world_size: int) -> str:
    return ", ".join(str(rank) for rank in range(1, world_size) if rank not in found)


def _keep_alive(line: Connection[Any, Any]) -> None:
    """A node that loses power says nothing: after 6 s without an answer the connection counts as ended."""
    with socket.socket(fileno=os.dup(line.fileno())) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 3)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 6000)
