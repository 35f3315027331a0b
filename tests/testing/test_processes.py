"""The supervisor finds, and ends, exactly what it started: across commands, crashes and recycled pids."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from slurm_power.errors import ConfigError, Unavailable
from slurm_power.testing.processes import ProcessId, Supervisor, marked_pids, start_ticks, wait_for

SLEEP = ["sleep", "600"]
DEAF = ["bash", "-c", "trap '' TERM; echo ready; while true; do sleep 0.2; done"]
LEAVES_A_CHILD = ["bash", "-c", "setsid sleep 600 & echo $!; exec sleep 600"]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    one = Supervisor(tmp_path)
    yield one
    one.stop_all(grace_s=0.5)


def alive(pid: int) -> bool:
    return start_ticks(pid) is not None


def test_what_is_started_runs_and_what_is_stopped_is_gone(supervisor: Supervisor, tmp_path: Path) -> None:
    pid = supervisor.start("one", SLEEP, log=tmp_path / "one.log")
    assert supervisor.running_pid("one") == pid
    assert supervisor.names() == ["one"]
    supervisor.stop("one")
    assert not alive(pid)
    assert supervisor.names() == []


def test_starting_twice_starts_once(supervisor: Supervisor, tmp_path: Path) -> None:
    first = supervisor.start("one", SLEEP, log=tmp_path / "one.log")
    assert supervisor.start("one", SLEEP, log=tmp_path / "one.log") == first


def test_a_later_command_finds_and_stops_it(tmp_path: Path) -> None:
    command = (
        "from pathlib import Path; from slurm_power.testing.processes import Supervisor;"
        f"print(Supervisor(Path({str(tmp_path)!r})).start('one', {SLEEP!r}, log=Path({str(tmp_path)!r}) / 'one.log'))"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    later = Supervisor(tmp_path)
    assert later.running_pid("one") == int(done.stdout)
    assert later.stop_all() == ["one"]
    assert not alive(int(done.stdout))


def test_one_that_ignores_term_is_killed_after_the_grace(supervisor: Supervisor, tmp_path: Path) -> None:
    log = tmp_path / "deaf.log"
    pid = supervisor.start("deaf", DEAF, log=log)
    assert wait_for(lambda: "ready" in log.read_text(), timeout_s=5)
    supervisor.stop("deaf", grace_s=0.2)
    assert not alive(pid)


def test_a_child_that_left_the_session_is_ended_too(supervisor: Supervisor, tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    supervisor.start("one", LEAVES_A_CHILD, log=log)
    assert wait_for(lambda: log.read_text().strip().isdigit(), timeout_s=5)
    child = int(log.read_text())
    supervisor.signal("one", signal.SIGKILL)
    assert supervisor.wait_until_gone("one", timeout_s=5)
    assert alive(child)
    supervisor.stop("one")
    assert not alive(child)


def test_a_recycled_pid_is_never_touched(supervisor: Supervisor, tmp_path: Path) -> None:
    stranger = subprocess.Popen(SLEEP)
    try:
        ticks = start_ticks(stranger.pid)
        assert ticks is not None
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        (tmp_path / "old.pid").write_text(ProcessId(stranger.pid, ticks - 1, boot_id).text())
        assert not supervisor.is_running("old")
        supervisor.stop("old")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_pid_of_an_earlier_boot_is_never_touched(supervisor: Supervisor, tmp_path: Path) -> None:
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    (tmp_path / "old.pid").write_text(ProcessId(os.getpid(), ticks, "another-boot").text())
    assert not supervisor.is_running("old")


def test_a_pid_file_of_another_program_is_left_alone(supervisor: Supervisor, tmp_path: Path) -> None:
    (tmp_path / "foreign.pid").write_text(f"{os.getpid()}\n")
    assert supervisor.names() == []
    assert supervisor.stop_all() == []
    assert (tmp_path / "foreign.pid").exists()


def test_the_last_started_is_the_first_stopped(supervisor: Supervisor, tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        supervisor.start(name, SLEEP, log=tmp_path / "log")
    assert supervisor.stop_all() == ["c", "a", "b"]


def test_a_crashed_service_is_known_but_not_running_and_can_start_again(supervisor: Supervisor, tmp_path: Path) -> None:
    first = supervisor.start("one", SLEEP, log=tmp_path / "log")
    supervisor.signal("one", signal.SIGKILL)
    assert supervisor.wait_until_gone("one", timeout_s=5)
    assert supervisor.names() == ["one"]
    assert supervisor.start("one", SLEEP, log=tmp_path / "log") != first
    assert supervisor.is_running("one")


def test_a_program_that_does_not_exist_is_a_matter_for_a_person(supervisor: Supervisor, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no_such_program"):
        supervisor.start("one", ["no_such_program"], log=tmp_path / "log")


def test_output_goes_to_the_log_and_the_environment_is_the_given_one(supervisor: Supervisor, tmp_path: Path) -> None:
    log = tmp_path / "env.log"
    pid = supervisor.start("env", ["/bin/sh", "-c", "/usr/bin/env; exec sleep 600"], log=log, env={"GIVEN": "yes"})
    assert wait_for(lambda: "GIVEN=yes" in log.read_text(), timeout_s=5)
    assert "HOME=" not in log.read_text()
    assert marked_pids(str(tmp_path / "env.pid")) == [pid]


def test_a_service_that_ends_at_once_never_counts_as_running(supervisor: Supervisor, tmp_path: Path) -> None:
    with suppress(Unavailable):  # told at once, unless it lived until its pid was written down
        supervisor.start("short", ["true"], log=tmp_path / "log")
    assert wait_for(lambda: not supervisor.is_running("short"), timeout_s=5)
