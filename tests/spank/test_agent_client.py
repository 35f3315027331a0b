"""The plugin talks to the agent within its deadline, whatever the agent does."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

DEADLINE_MS = 200
# What a test allows for the deadline on a busy machine; a client without a deadline would wait for ever.
PATIENCE_S = 5.0
LINE = b'{"op":"job_end","job_id":1,"node":"n1"}\n'

Serve = Callable[[socket.socket], None]


class Told:
    def __init__(self, ok: bool, problem: str, took_s: float) -> None:
        self.ok, self.problem, self.took_s = ok, problem, took_s


@pytest.fixture
def tell(plugin_parts: ctypes.CDLL) -> Callable[[Path | str], Told]:
    plugin_parts.agent_tell.restype = ctypes.c_bool

    def run(path: Path | str, line: bytes = LINE) -> Told:
        problem = ctypes.create_string_buffer(256)
        began = time.monotonic()
        deadline = ctypes.c_long(DEADLINE_MS)
        ok = plugin_parts.agent_tell(os.fsencode(path), line, deadline, problem, ctypes.c_size_t(256))
        return Told(ok, problem.value.decode("ascii"), time.monotonic() - began)

    return run


@contextlib.contextmanager
def agent(path: Path, serve: Serve) -> Iterator[Path]:
    """A listener that hands its first connection to `serve`."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(PATIENCE_S)

        def accept() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield path
        finally:
            thread.join()


def answering(answer: bytes) -> Serve:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    return serve


def silent_until_closed(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def pouring(connection: socket.socket) -> None:
    for _ in range(64):
        connection.sendall(b"x" * 65536)


def dripping(connection: socket.socket) -> None:
    connection.settimeout(PATIENCE_S)
    for _ in range(100):
        connection.sendall(b" ")
        time.sleep(0.02)


@pytest.mark.parametrize("answer", [b'{"ok": true}\n', b'{"ok":true,"uuids":[]}\n', b'{ "ok" : true }\nmore'])
def test_an_ok_answer_is_told(tmp_path: Path, tell: Callable[[Path], Told], answer: bytes) -> None:
    with agent(tmp_path / "s", answering(answer)) as path:
        assert tell(path).ok


def test_the_agent_receives_exactly_the_line(tmp_path: Path, tell: Callable[[Path], Told]) -> None:
    received: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        received.append(connection.makefile("rb").readline())
        connection.sendall(b'{"ok": true}\n')

    with agent(tmp_path / "s", serve) as path:
        assert tell(path).ok
    assert received == [LINE]


@pytest.mark.parametrize(
    "answer",
    [
        b'{"ok": false, "error": "no"}\n',
        b'{"ok": truely}\n',
        b'{"error": "\\"ok\\": true"}\n',
        b'["ok", true]\n',
        b"\xff\x00\xfe\n",
        b"garbage\n",
        b"\n",
    ],
)
def test_any_other_answer_is_a_refusal(tmp_path: Path, tell: Callable[[Path], Told], answer: bytes) -> None:
    with agent(tmp_path / "s", answering(answer)) as path:
        told = tell(path)
    assert not told.ok
    assert told.problem.startswith("refused: ")


def test_an_answer_cannot_smuggle_controls_into_the_log(tmp_path: Path, tell: Callable[[Path], Told]) -> None:
    with agent(tmp_path / "s", answering(b"\x1b[31mred\r\xc3\n")) as path:
        assert tell(path).problem == "refused: ?[31mred??"


@pytest.mark.parametrize(
    ("serve", "problem"),
    [
        (silent_until_closed, "no answer in time"),
        (dripping, "no answer in time"),
        (pouring, "answer too long"),
        (lambda connection: connection.close(), ""),
    ],
    ids=["silent", "dripping", "pouring", "hangs-up"],
)
def test_a_hostile_agent_costs_no_more_than_the_deadline(
    tmp_path: Path, tell: Callable[[Path], Told], serve: Serve, problem: str
) -> None:
    with agent(tmp_path / "s", serve) as path:
        told = tell(path)
    assert not told.ok
    assert told.problem
    assert problem in told.problem
    assert told.took_s < PATIENCE_S


def test_an_agent_that_never_accepts_costs_no_more_than_the_deadline(
    tmp_path: Path, tell: Callable[[Path], Told]
) -> None:
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as waiting:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        for _ in range(8):  # fill the backlog
            other = waiting.enter_context(socket.socket(socket.AF_UNIX))
            other.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                other.connect(str(tmp_path / "s"))
        told = tell(tmp_path / "s")
    assert not told.ok
    assert told.problem.endswith("not accepted in time")
    assert told.took_s < PATIENCE_S


def test_a_line_that_nobody_reads_costs_no_more_than_the_deadline(tmp_path: Path, tell: Callable[..., Told]) -> None:
    done = threading.Event()
    with agent(tmp_path / "s", lambda _: done.wait(PATIENCE_S) and None) as path:
        told = tell(path, b"x" * 4_000_000)
        done.set()
    assert not told.ok
    assert told.took_s < PATIENCE_S


# slurmd and slurmstepd do not ignore SIGPIPE as Python does; here the default action stands again.
_TELL_WITH_SIGPIPE = """
import ctypes, signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
parts, problem = ctypes.CDLL(sys.argv[1]), ctypes.create_string_buffer(256)
parts.agent_tell(sys.argv[2].encode(), b"x" * 4_000_000, ctypes.c_long(5000), problem, ctypes.c_size_t(256))
print(problem.value.decode())
"""


def test_an_agent_that_hangs_up_does_not_kill_the_prolog(plugin_parts_file: Path, tmp_path: Path) -> None:
    with agent(tmp_path / "s", lambda connection: connection.close()) as path:
        argv = [sys.executable, "-c", _TELL_WITH_SIGPIPE, str(plugin_parts_file), str(path)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("send: ")


@pytest.mark.parametrize("name", ["nobody-there", "x" * 200])
def test_a_path_without_an_agent_fails_at_once_and_says_which(
    tmp_path: Path, tell: Callable[[Path], Told], name: str
) -> None:
    told = tell(tmp_path / name)
    assert not told.ok
    assert str(tmp_path) in told.problem


def test_a_socket_without_a_listener_is_refused(tmp_path: Path, tell: Callable[[Path], Told]) -> None:
    with socket.socket(socket.AF_UNIX) as unheard:
        unheard.bind(str(tmp_path / "s"))
        assert "refused" in tell(tmp_path / "s").problem
