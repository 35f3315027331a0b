"""The server as a process: how it drains, how it is stopped, how it fails, and who may use its socket."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from job_wrappers.serving.errors import ConfigError
from job_wrappers.serving.server.listeners import bind_unix
from tests.serving.fake_engine import until

BODY = {"prompt": "abc", "max_tokens": 5, "stream": True}
WAIT_S = 30.0


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen[str]
    url: str
    unix_socket: Path

    def end(self) -> tuple[int, str]:
        """Exit code and what it printed."""
        out, _ = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, out

    def healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=WAIT_S).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def running(folder: Path, *, drain_s: float = WAIT_S) -> Iterator[Running]:
    path = folder / "s"
    command = [sys.executable, "-m", "tests.serving.fake_server", str(path), str(drain_s)]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            assert process.stdout is not None
            server = Running(process, f"http://127.0.0.1:{int(process.stdout.readline())}", path)
            assert until(server.healthy)
            yield server
        finally:
            process.kill()


def test_sigterm_lets_running_requests_end_and_refuses_new_ones(tmp_path: Path) -> None:
    with running(tmp_path) as server, httpx.stream("POST", f"{server.url}/v1/completions", json=BODY) as response:
        lines = response.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        assert until(lambda: not server.healthy())
        refused = httpx.post(f"{server.url}/v1/completions", json=BODY)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        server.process.send_signal(signal.SIGUSR2)
        assert [line for line in lines if line][-1] == "data: [DONE]"
        code, out = server.end()
        assert code == 0
        assert "SIGTERM: draining, 1 requests run" in out
        assert not server.unix_socket.exists()


def test_what_takes_longer_than_the_drain_is_told_so(tmp_path: Path) -> None:
    with (
        running(tmp_path, drain_s=0.2) as server,
        httpx.stream("POST", f"{server.url}/v1/completions", json=BODY) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGUSR1)
        last = [line for line in lines if line]
        assert "the server has ended" in last[-2]
        assert server.end()[0] == 0


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with (
        running(tmp_path) as server,
        httpx.stream("POST", f"{server.url}/v1/completions", json=BODY) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        for _ in range(2):  # as scancel and srun do: two that come together are one
            server.process.send_signal(signal.SIGTERM)
        assert until(lambda: not server.healthy())
        time.sleep(1.1)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        code, out = server.end()
        assert code == 0
        assert "SIGTERM again: ending at once" in out


def test_an_engine_that_crashes_ends_the_server_with_its_reason(tmp_path: Path) -> None:
    with (
        running(tmp_path) as server,
        httpx.stream("POST", f"{server.url}/v1/completions", json=BODY) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGHUP)
        assert "rank 1 is gone" in [line for line in lines if line][-2]
        code, out = server.end()
        assert (code, out.splitlines()[-1]) == (6, "rank 1 is gone")


def test_the_sockets_owner_steers_without_a_token(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        assert stat.S_IMODE(server.unix_socket.stat().st_mode) == 0o600
        transport = httpx.HTTPTransport(uds=str(server.unix_socket))
        with httpx.Client(base_url="http://server", transport=transport) as client:
            answer = client.post("/admin/limits", json={"max_num_seqs": 3})
            assert answer.json()["limits"]["max_num_seqs"] == 3
        assert httpx.post(f"{server.url}/admin/limits", json={"max_num_seqs": 3}).status_code == 403


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_nobody_else_may_speak_on_the_socket_even_if_its_mode_let_them(tmp_path: Path) -> None:
    ask = (
        "import os, socket, sys; os.chdir(sys.argv[1]); os.setuid(int(sys.argv[2]));"
        "line = socket.socket(socket.AF_UNIX); line.connect('s'); line.sendall(b'GET /health HTTP/1.0\\r\\n\\r\\n');"
        "print(line.recv(12))"
    )
    with running(tmp_path) as server:
        tmp_path.chmod(0o755)
        server.unix_socket.chmod(0o666)
        own, foreign = (
            subprocess.run([sys.executable, "-c", ask, tmp_path, uid], text=True, capture_output=True, check=False)
            for uid in ("0", "65534")
        )
    assert own.stdout == "b'HTTP/1.1 200'\n"
    assert foreign.stdout == "b''\n" or "ConnectionResetError" in foreign.stderr or "BrokenPipe" in foreign.stderr


def test_a_socket_that_somebody_listens_on_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with bind_unix(path) as first:
        first.listen()
        with pytest.raises(ConfigError, match="another server listens there"):
            bind_unix(path)
    with bind_unix(path):  # what the first left behind
        pass
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="not a socket"):
        bind_unix(tmp_path / "file")
    with pytest.raises(ConfigError, match="at most 107 bytes"):
        bind_unix(tmp_path / ("x" * 200))
