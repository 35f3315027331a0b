"""slurm-power-run: the command's own exit code, its signals, one summary line, and never in the job's way."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from job_wrappers.energy_counters import used_joules
from job_wrappers.run import parse_command, summary_line
from slurm_power.errors import Unavailable

RUN = [sys.executable, "-m", "job_wrappers.run"]
NO_AGENT = {**os.environ, "SLURM_JOB_ID": "7", "SLURM_POWER_AGENT_SOCKET": "/nowhere/agent.sock"}


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, *arguments], env=env or NO_AGENT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_the_exit_code_is_the_commands(code: int) -> None:
    assert run("--", "sh", "-c", f"exit {code}").returncode == code


def test_a_command_ended_by_a_signal_exits_as_a_shell_says_it() -> None:
    assert run("--", "sh", "-c", "kill -KILL $$").returncode == 128 + signal.SIGKILL


@pytest.mark.parametrize(("command", "code"), [("/no/such/program", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_start_exits_as_a_shell_says_it(command: str, code: int) -> None:
    assert run("--", command).returncode == code


@pytest.mark.parametrize("arguments", [[], ["--"], ["--bogus"], ["--bogus", "--", "true"]])
def test_bad_usage_is_one_line_and_exit_code_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("slurm-power-run: ")


def test_without_agent_the_command_runs_with_one_warning_and_one_summary() -> None:
    done = run("--", "echo", "hello")
    warning, summary = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert "warning" in warning
    assert "energy unknown" in summary


def test_outside_a_job_the_command_runs_too() -> None:
    env = {name: value for name, value in os.environ.items() if name != "SLURM_JOB_ID"}
    done = run("--", "true", env=env)
    assert done.returncode == 0
    assert "not a Slurm job" in done.stderr


def test_stdin_and_the_commands_own_dashes_pass_through() -> None:
    done = subprocess.run(
        [*RUN, "--", "cat", "-"], env=NO_AGENT, input="text", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "text"
    assert parse_command(["--", "cmd", "--", "-x"]) == ["cmd", "--", "-x"]


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2", "QUIT"])
def test_signals_reach_the_command(name: str) -> None:
    # `wait` ends at once on a trapped signal; around a command in the foreground bash may lose SIGINT.
    wrapper = started(f"sleep 60 & trap 'kill $!; echo got {name}; exit 3' {name}; echo ready; wait")
    wrapper.send_signal(signal.Signals[f"SIG{name}"])
    assert (wrapper.communicate(timeout=30)[0], wrapper.returncode) == (f"got {name}\n", 3)


def test_a_stopped_wrapper_stops_its_command_and_both_go_on() -> None:
    wrapper = started("trap 'echo continued; exit 4' CONT; echo ready; while :; do sleep 0.05; done")
    wrapper.send_signal(signal.SIGTSTP)
    wait_for_state(wrapper.pid, "T")
    wrapper.send_signal(signal.SIGCONT)
    assert (wrapper.communicate(timeout=30)[0], wrapper.returncode) == ("continued\n", 4)


def test_the_command_starts_with_the_signal_mask_of_its_caller() -> None:
    blocked = "print(__import__('signal').pthread_sigmask(0, []))"
    done = run("--", sys.executable, "-c", blocked)
    assert done.stdout == "set()\n"


def started(script: str) -> subprocess.Popen[str]:
    wrapper = subprocess.Popen([*RUN, "--", "bash", "-c", script], env=NO_AGENT, stdout=subprocess.PIPE, text=True)
    assert wrapper.stdout is not None
    assert wrapper.stdout.readline() == "ready\n"
    return wrapper


def wait_for_state(pid: int, state: str) -> None:
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != state:
        assert time.monotonic() < deadline
        time.sleep(0.02)


class RecordingAgent:
    """Answers my_gpus with two GPUs and keeps the points it is sent."""

    def __init__(self, path: Path) -> None:
        self.points: list[dict[str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(5)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5.0)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile() as lines:
                request = json.loads(lines.readline())
                self.points += request.get("points", [])
                connection.sendall(b'{"ok": true, "uuids": ["GPU-x", "GPU-y"], "node": "n1"}\n')


@pytest.fixture
def agent_env() -> Iterator[tuple[RecordingAgent, dict[str, str]]]:
    with tempfile.TemporaryDirectory(prefix="run-", dir="/tmp") as name:
        path = Path(name) / "agent.sock"
        with closing(RecordingAgent(path)) as agent:
            yield agent, NO_AGENT | {"SLURM_POWER_AGENT_SOCKET": str(path)}


def test_the_command_learns_its_gpus_and_the_agent_hears_start_and_end(
    agent_env: tuple[RecordingAgent, dict[str, str]],
) -> None:
    agent, env = agent_env
    done = run("--", "sh", "-c", "echo $SLURM_POWER_GPU_UUIDS; exit 5", env=env)
    assert done.stdout == "GPU-x,GPU-y\n"
    start, end = (point["fields"] for point in agent.points)
    assert start == {"event": "start", "gpus": 2}
    assert (end["event"], end["exit_code"]) == ("end", 5)
    assert end["duration_s"] >= 0


def test_without_energy_counters_energy_is_unknown_not_zero(agent_env: tuple[RecordingAgent, dict[str, str]]) -> None:
    agent, env = agent_env
    done = run("--", "true", env=env)
    assert "energy_joules" not in agent.points[-1]["fields"]
    assert "energy unknown" in done.stderr.splitlines()[-1]


def test_a_counter_that_ran_backwards_is_no_energy() -> None:
    with pytest.raises(Unavailable, match="was reset"):
        used_joules({"GPU-x": 500.0}, {"GPU-x": 20.0})


def test_the_summary_for_people() -> None:
    line = summary_line(2, duration_s=10.0, energy_joules=7200.0, exit_code=0)
    assert line == "2 GPUs, 10.0 s, 7200 J (0.002000 kWh), mean 720.0 W, exit code 0"


def test_it_loads_nothing_heavy() -> None:
    program = (
        "import job_wrappers.run, sys; print([m for m in ('numpy', 'rich', 'click', 'pynvml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
