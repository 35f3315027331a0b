"""SuspendProgram and ResumeProgram: dry on an emulated cluster, one node failing stops no other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from slurm_power.testing.nvml_emulator.emulator import EmulatedNode
from slurm_power.testing.nvml_emulator.node_power import OFF_WATTS

POWER = Path(__file__).resolve().parents[2] / "etc" / "power"


def run(program: str, tmp_path: Path, *nodes: str) -> subprocess.CompletedProcess[str]:
    """With stand-ins for the host's commands: `scontrol` lists what it is given, `logger` writes to a file."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    for name, text in (
        ("scontrol", 'echo "$3" | tr , "\\n"'),
        ("logger", f'echo "$*" >> {tmp_path}/log'),
        ("python3", f'exec {sys.executable} "$@"'),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", "SLURM_POWER_EMULATED_NODES": f"{tmp_path}/%n.state"}
    argv = [str(POWER / program), ",".join(nodes)]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, cwd=POWER.parents[1])


def draw_watts(tmp_path: Path, name: str) -> float:
    with EmulatedNode.open(tmp_path / f"{name}.state") as node:
        return node.draw_watts()


def test_a_suspended_node_draws_its_off_value_until_it_is_resumed(tmp_path: Path) -> None:
    for name in ("n1", "n2"):
        EmulatedNode.create(tmp_path / f"{name}.state", gpu_count=2, base_watts=500.0, uuid_seed=name).close()
    assert run("suspend-nodes", tmp_path, "n1", "n2").returncode == 0
    assert [draw_watts(tmp_path, name) for name in ("n1", "n2")] == [OFF_WATTS, OFF_WATTS]
    assert run("resume-nodes", tmp_path, "n1").returncode == 0
    assert draw_watts(tmp_path, "n1") > 500.0
    assert draw_watts(tmp_path, "n2") == OFF_WATTS


def test_a_node_that_cannot_be_switched_is_logged_and_stops_no_other(tmp_path: Path) -> None:
    EmulatedNode.create(tmp_path / "n2.state", gpu_count=1, base_watts=500.0, uuid_seed="n2").close()
    assert run("suspend-nodes", tmp_path, "n1", "n2").returncode == 1
    assert draw_watts(tmp_path, "n2") == OFF_WATTS
    assert "switch_off n1 failed" in (tmp_path / "log").read_text()
