"""Start and stop the daemons of a cluster, each under its own name: munged, slurmctld, slurmd-<node>."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from slurm_power.errors import Unavailable
from slurm_power.testing.cluster.layout import ClusterLayout
from slurm_power.testing.cluster.requirements import program
from slurm_power.testing.processes import Supervisor, wait_for

_START_TIMEOUT_S = 15.0
_LOG_TAIL_LINES = 8


def start_munged(layout: ClusterLayout, supervisor: Supervisor) -> None:
    """Our own munged with our own key; `--force` because it runs as root."""
    munge = layout.munge
    if supervisor.is_running("munged"):
        return
    layout.munge_socket.unlink(missing_ok=True)
    argv = [
        program("munged"),
        "--foreground",
        "--force",
        f"--socket={layout.munge_socket}",
        f"--key-file={munge / 'munge.key'}",
        f"--pid-file={munge / 'munged.pid'}",
        f"--log-file={layout.log / 'munged.log'}",
        f"--seed-file={munge / 'munged.seed'}",
    ]
    supervisor.start("munged", argv, log=layout.log / "munged.out")
    _await("munged", supervisor, layout.munge_socket.exists, layout.log / "munged.out")


def start_slurmctld(layout: ClusterLayout, supervisor: Supervisor) -> None:
    supervisor.start(
        "slurmctld",
        [program("slurmctld"), "-D", "-f", str(layout.slurm_conf)],
        log=layout.log / "slurmctld.out",
        env=daemon_environment(layout),
    )
    _await("slurmctld", supervisor, lambda: _answers(layout), layout.log / "slurmctld.log")


def start_slurmd(layout: ClusterLayout, supervisor: Supervisor, node_name: str) -> None:
    (layout.spool / node_name).mkdir(exist_ok=True)
    supervisor.start(
        daemon_name(node_name),
        [program("slurmd"), "-D", "-N", node_name, "-f", str(layout.slurm_conf)],
        log=layout.log / f"slurmd-{node_name}.out",
        env=daemon_environment(layout),
    )


def daemon_name(node_name: str) -> str:
    return f"slurmd-{node_name}"


def daemon_environment(layout: ClusterLayout) -> Mapping[str, str]:
    """The daemons' own: nothing of the shell that started them may leak into jobs."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SLURM_CONF": str(layout.slurm_conf),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "HOME": "/root",
    }


def _answers(layout: ClusterLayout) -> bool:
    ping = subprocess.run(
        [program("scontrol"), "ping"], env=dict(daemon_environment(layout)), capture_output=True, text=True, check=False
    )
    return "is UP" in ping.stdout


def _await(name: str, supervisor: Supervisor, condition: Callable[[], bool], log: Path) -> None:
    """Wait until the daemon does its work; raise Unavailable with the end of its log when it does not."""
    wait_for(lambda: condition() or not supervisor.is_running(name), timeout_s=_START_TIMEOUT_S, poll_s=0.1)
    if not supervisor.is_running(name):
        raise Unavailable(f"{name} ended at once; end of {log}:\n{tail(log)}")
    if not condition():
        raise Unavailable(f"{name} did not start within {_START_TIMEOUT_S:.0f} s; end of {log}:\n{tail(log)}")


def tail(log: Path, lines: int = _LOG_TAIL_LINES) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
