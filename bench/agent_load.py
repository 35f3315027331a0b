"""CPU and memory of a real node agent that samples eight emulated GPUs through the real pynvml."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from slurm_power.errors import Unavailable
from slurm_power.testing.nvml_emulator.emulator import EmulatedNode, build_library
from slurm_power.testing.processes import wait_for

GPUS = 8
WARM_UP_S = 5.0
MEASURE_S = 20.0


@dataclass(frozen=True, slots=True)
class AgentLoad:
    cpu_fraction: float  # of one core
    rss_bytes: int


def measure(directory: Path, *, sample_period_s: float) -> AgentLoad:
    """Run an agent for a while and count its CPU seconds. Raise Unavailable when it does not start."""
    directory.mkdir(parents=True, exist_ok=True)
    state_file, socket_file = directory / "gpus.state", directory / "agent.sock"
    node = EmulatedNode.create(state_file, gpu_count=GPUS, base_watts=500.0, uuid_seed="bench")
    for uuid in node.gpu_uuids():
        node.open_load(uuid, pid=os.getpid(), utilisation_fraction=0.9)
    config_file = directory / "slurm-power.toml"
    config_file.write_text(
        f"""[agent]
safe_cap_watts = 400.0
node_base_watts = 500.0
sample_period_s = {sample_period_s}
socket = "{socket_file}"
journal = "{directory / "journal.json"}"
[store]
kind = "sqlite"
path = "{directory / "telemetry.db"}"
"""
    )
    library = build_library()
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library), "SLURM_POWER_EMULATED_NODE": str(state_file)}
    program = [str(Path(sys.executable).parent / "slurm-power-agent"), "--config", str(config_file), "--node", "n1"]
    log_file = directory / "agent.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(program, env=environment, stdout=log, stderr=log)
    try:
        if not wait_for(socket_file.exists, timeout_s=20.0):
            raise Unavailable(f"the agent did not start; see {log_file}")
        return _watch(psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(timeout=20)
        node.close()


def _watch(agent: psutil.Process) -> AgentLoad:
    time.sleep(WARM_UP_S)
    before, started_s = agent.cpu_times(), time.monotonic()
    time.sleep(MEASURE_S)
    after, elapsed_s = agent.cpu_times(), time.monotonic() - started_s
    used_s = (after.user - before.user) + (after.system - before.system)
    return AgentLoad(cpu_fraction=used_s / elapsed_s, rss_bytes=agent.memory_info().rss)
