"""Long-running processes that outlive the command that started them.

What runs is written on disk, one `<name>.pid` per service, so a later command, also after a crash, finds it
again. A process is recognised by pid *and* start time *and* boot, or by a mark in its environment; never by name.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from slurm_power.errors import ConfigError, Unavailable

MARK = "SLURM_POWER_SUPERVISED"
"""Environment variable that every supervised process and its children carry: the path of the pid file."""

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process of one boot: a pid alone may have been given to somebody else since."""

    pid: int
    start_ticks: int
    boot_id: str

    def text(self) -> str:
        return f"{self.pid}\n{self.start_ticks}\n{self.boot_id}\n"

    def alive(self) -> bool:
        return self.boot_id == _boot_id() and start_ticks(self.pid) == self.start_ticks


class Supervisor:
    """Starts, finds and stops services whose pid files live in one directory."""

    def __init__(self, run_directory: Path) -> None:
        self._directory = run_directory
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> int:
        """Start `argv` in its own session and return its pid; already running: return the pid it has.
        Raise ConfigError when the program cannot be executed."""
        with self._locked():
            running = self.running_pid(name)
            if running is not None:
                return running
            marked = {**(os.environ if env is None else env), MARK: str(self._pid_file(name))}
            child = _spawn(argv, log=log, env=marked, cwd=cwd)
            self._children[name] = child
            self._record(name, child.pid)
            return child.pid

    def running_pid(self, name: str) -> int | None:
        """Pid of the service, None when it is not running (never started, ended or crashed)."""
        self._reap(name)
        known = self._recorded(name)
        return known.pid if known is not None and known.alive() else None

    def is_running(self, name: str) -> bool:
        return self.running_pid(name) is not None

    def names(self) -> list[str]:
        """Services with a pid file, running or crashed, in the order they were started."""
        files = sorted(self._directory.glob("*.pid"), key=lambda file: file.stat().st_mtime_ns)
        return [file.stem for file in files if self._recorded(file.stem) is not None]

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send one signal to the service itself, not to its children; for crash tests and reloads."""
        pid = self.running_pid(name)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self, name: str, *, grace_s: float = 10.0) -> None:
        """TERM the service, then KILL after `grace_s` it and everything it started. No error if it is gone."""
        with self._locked():
            self._stop(name, grace_s)

    def stop_all(self, *, grace_s: float = 10.0) -> list[str]:
        """Stop every service, the last started first; return their names."""
        with self._locked():
            names = self.names()[::-1]
            for name in names:
                self._stop(name, grace_s)
            return names

    def wait_until_gone(self, name: str, *, timeout_s: float) -> bool:
        return wait_for(lambda: not self.is_running(name), timeout_s=timeout_s)

    def _stop(self, name: str, grace_s: float) -> None:
        self.signal(name, signal.SIGTERM)
        wait_for(lambda: not self.is_running(name), timeout_s=grace_s)
        self._kill_rest(name, grace_s=2.0)
        self._reap(name)
        self._pid_file(name).unlink(missing_ok=True)

    def _kill_rest(self, name: str, *, grace_s: float) -> None:
        """What is left: the service if it would not end, its session, and children that left the session."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self._members(name):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            if wait_for(lambda: not self._members(name), timeout_s=grace_s):
                return
        raise Unavailable(f"{name}: processes {self._members(name)} do not end")

    def _members(self, name: str) -> list[int]:
        self._reap(name)
        ours = {os.getpid(), *_ancestors(os.getpid())}
        found = set(marked_pids(str(self._pid_file(name))))
        known = self._recorded(name)
        if known is not None and known.alive():
            found.add(known.pid)
        for pid in list(found):
            found.update(_descendants(pid))
        return sorted(found - ours)

    def _record(self, name: str, pid: int) -> None:
        ticks = start_ticks(pid)
        if ticks is None:
            raise Unavailable(f"{name}: ended at once; see its log")
        temporary = self._pid_file(name).with_suffix(".new")
        temporary.write_text(ProcessId(pid, ticks, _boot_id()).text())
        temporary.replace(self._pid_file(name))

    def _recorded(self, name: str) -> ProcessId | None:
        try:
            pid, ticks, boot_id = self._pid_file(name).read_text().split()
            return ProcessId(int(pid), int(ticks), boot_id)
        except (FileNotFoundError, ValueError):
            return None  # no file, or one that another program wrote there: not ours to touch

    def _reap(self, name: str) -> None:
        """A child of this very process stays a zombie, and so its session lives on, until it is waited for."""
        child = self._children.get(name)
        if child is not None and child.poll() is not None:
            del self._children[name]

    def _pid_file(self, name: str) -> Path:
        return self._directory / f"{name}.pid"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One command at a time changes what runs."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def wait_for(condition: Callable[[], bool], *, timeout_s: float, poll_s: float = _POLL_S) -> bool:
    """Ask until `condition` holds (True) or the time is over (its last answer)."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if condition():
            return True
        time.sleep(poll_s)
    return condition()


def start_ticks(pid: int) -> int | None:
    """Start time of a living process in clock ticks since boot (proc(5), stat, field 22); None: no such process."""
    fields = _stat_fields(pid)
    return None if fields is None or fields[0] in {"Z", "X"} else int(fields[19])


def marked_pids(value: str) -> list[int]:
    """Living processes that carry MARK=`value` in their environment."""
    wanted = f"{MARK}={value}".encode()
    found = []
    for pid in _all_pids():
        with suppress(OSError):
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            if wanted in environ.split(b"\0") and start_ticks(pid) is not None:
                found.append(pid)
    return found


def _spawn(argv: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path | None) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("ab") as output:
            return subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )
    except OSError as cause:
        raise ConfigError(f"{argv[0]}: cannot be started: {cause.strerror}") from cause


def _stat_fields(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the state on; the command before it may hold any character."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _ancestors(pid: int) -> Iterator[int]:
    fields = _stat_fields(pid)
    while fields is not None and int(fields[1]) > 0:
        yield int(fields[1])
        fields = _stat_fields(int(fields[1]))


def _descendants(pid: int) -> set[int]:
    parents = {one: int(fields[1]) for one in _all_pids() if (fields := _stat_fields(one)) and fields[0] != "Z"}
    found = {pid}
    while grown := {child for child, parent in parents.items() if parent in found} - found:
        found |= grown
    return found - {pid}


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
