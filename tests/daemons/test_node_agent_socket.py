"""The local socket: who may ask what, and clients that mean harm."""

from __future__ import annotations

import json
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from slurm_power.adapters.clock_system import SystemClock
from slurm_power.daemons.node_agent_socket import MAX_CLIENTS_OF_ONE_USER, LocalServer
from slurm_power.errors import ConfigError
from slurm_power.gpu.wire import MAX_LINE_BYTES


class Desk:
    """A server with an echo behind it, served in a thread until the test is over."""

    def __init__(self, folder: Path, *, timeout_s: float = 0.5, requests_per_s: float = 50.0) -> None:
        self.path = folder / "agent.sock"
        self.uid = 0
        self.server = LocalServer(
            self.path,
            lambda line, uid: {"ok": True, "heard": len(line), "uid": uid},
            clock=SystemClock(),
            timeout_s=timeout_s,
            requests_per_s=requests_per_s,
            peer_uid=lambda _: self.uid,
        )
        self._over = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def connect(self, *, uid: int = 0) -> socket.socket:
        self.uid = uid
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(5.0)
        connection.connect(str(self.path))
        # Answered once: the server has accepted this client under this uid.
        return connection

    def ask(self, line: bytes = b"{}\n", *, uid: int = 0) -> dict[str, Any]:
        with closing(self.connect(uid=uid)) as connection:
            connection.sendall(line)
            return answer_of(connection)

    def close(self) -> None:
        self._over = True
        self.server.wake()
        self._thread.join(5.0)
        self.server.close()

    def _serve(self) -> None:
        while not self._over:
            self.server.serve(until_s=time.monotonic() + 5.0)


def answer_of(connection: socket.socket) -> dict[str, Any]:
    with connection.makefile() as lines:
        answer: dict[str, Any] = json.loads(lines.readline())
        return answer


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sock-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def desk(folder: Path) -> Iterator[Desk]:
    with closing(Desk(folder)) as opened:
        yield opened


def test_one_line_one_answer(desk: Desk) -> None:
    assert desk.ask(b'{"op":1}\n', uid=7) == {"ok": True, "heard": 8, "uid": 7}


def test_several_lines_are_answered_in_order(desk: Desk) -> None:
    with closing(desk.connect()) as connection, connection.makefile() as lines:
        connection.sendall(b"a\nbb\nccc\n")
        assert [json.loads(lines.readline())["heard"] for _ in range(3)] == [1, 2, 3]


def test_a_client_that_closes_its_side_still_gets_its_answer(desk: Desk) -> None:
    with closing(desk.connect()) as connection:
        connection.sendall(b"abc\n")
        connection.shutdown(socket.SHUT_WR)
        assert answer_of(connection)["heard"] == 3


def test_every_user_may_connect(desk: Desk) -> None:
    assert desk.path.stat().st_mode & 0o777 == 0o666


def test_a_line_without_end_is_cut_off(desk: Desk) -> None:
    with closing(desk.connect(uid=1000)) as connection:
        with suppress(OSError):
            connection.sendall(b"x" * (MAX_LINE_BYTES + 100_000))
        with suppress(OSError):
            assert not answer_of(connection)["ok"]
    assert desk.ask()["ok"]


def test_a_silent_client_is_dropped_and_holds_nobody_up(desk: Desk) -> None:
    with closing(desk.connect(uid=1000)) as silent:
        silent.sendall(b'{"op": ')
        assert desk.ask()["ok"]
        assert silent.recv(100) == b""


def test_a_client_that_never_reads_is_dropped(desk: Desk) -> None:
    with closing(desk.connect()) as deaf:
        with suppress(OSError):
            deaf.settimeout(2.0)
            for _ in range(200):
                deaf.sendall(b"{}\n" * 10_000)
        assert desk.ask()["ok"]


def test_one_user_cannot_take_all_places_and_root_always_gets_in(desk: Desk) -> None:
    with ExitStack() as stack:
        for _ in range(MAX_CLIENTS_OF_ONE_USER * 2):
            stack.enter_context(closing(desk.connect(uid=1000)))
            time.sleep(0.002)
        assert desk.ask(uid=0)["ok"]
        assert desk.ask(uid=1001)["ok"]


def test_a_busy_user_runs_out_and_others_do_not(folder: Path) -> None:
    with closing(Desk(folder, requests_per_s=5.0)) as desk:
        with closing(desk.connect(uid=1000)) as busy, busy.makefile() as lines:
            busy.sendall(b"{}\n" * 50)
            answers = [json.loads(line) for line in lines]
        assert [answer["ok"] for answer in answers] == [True] * 10 + [False]
        assert answers[-1]["error"] == "too many requests"
        assert desk.ask(uid=1001)["ok"]
        assert desk.ask(uid=0)["ok"]


def test_many_clients_at_once(desk: Desk) -> None:
    answers: list[dict[str, Any]] = []

    def ask() -> None:
        answers.append(desk.ask(b"x" * 50_000 + b"\n"))

    together(ask, 30)
    assert [answer["heard"] for answer in answers] == [50_000] * 30


def together(act: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=act) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)


def test_a_dead_agents_socket_is_replaced(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "agent.sock"))
    with closing(Desk(folder)) as desk:
        assert desk.ask()["ok"]


def test_a_living_agents_socket_is_not(desk: Desk, folder: Path) -> None:
    with pytest.raises(ConfigError, match="another agent listens there"):
        Desk(folder)
    assert desk.ask()["ok"]


def test_a_file_in_the_way_is_left_alone(folder: Path) -> None:
    (folder / "agent.sock").write_text("mine")
    with pytest.raises(ConfigError, match="not a socket"):
        Desk(folder)
    assert (folder / "agent.sock").read_text() == "mine"


def test_a_folder_that_everybody_may_write_is_refused(folder: Path) -> None:
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="not be writable by everybody"):
        Desk(folder)


def test_a_path_too_long_for_a_socket_is_said_so(folder: Path) -> None:
    with pytest.raises(ConfigError, match="at most 107 bytes"):
        Desk(folder / ("d" * 120))


def test_the_socket_file_goes_with_the_server(folder: Path) -> None:
    with closing(Desk(folder)) as desk:
        path = desk.path
    assert not path.exists()
