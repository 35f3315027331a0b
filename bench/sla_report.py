"""How long the quality report of a one-week job on 8 GPUs takes: 4.8 million samples, a fresh process, real SQLite.

The data is made up (a steady load with some throttling and a gap), sealed by the agent's own code.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from slurm_power.adapters.telemetry_sqlite import SqliteStore
from slurm_power.daemons.node_agent_samples import block_point
from slurm_power.ports.telemetry_store import FieldValue, Point
from slurm_power.sla.sample import GpuMoment
from slurm_power.sla.seal import Sealer

GPUS, WEEK_S = 8, 7 * 86_400
BEGIN_S = 1_800_000_000.0
JOB_ID, NODE = 4711, "n1"
SEAL_S = 300.0
GAP_BEGIN_S, GAP_S = 200_000, 600
_FLUSH_S = 120.0

_MEASURED = """
import json, resource, sys, time
began_s = time.perf_counter()
from slurm_power.cli.main import slurm_power
slurm_power.main(["report", "sla", "--job", sys.argv[1], "--config", sys.argv[2], "--since", sys.argv[3],
                  "--until", sys.argv[4], "--out", sys.argv[5], "--json"], standalone_mode=False)
spent_s = time.perf_counter() - began_s
used = resource.getrusage(resource.RUSAGE_SELF)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
rss = int(status["VmHWM"].split()[0]) * 1024  # ru_maxrss also knows what the parent had
told = {"s": spent_s, "cpu_s": used.ru_utime + used.ru_stime, "rss": rss}
print(json.dumps(told), file=sys.stderr)
"""


def measure(*, gpus: int = GPUS, seconds: int = WEEK_S) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="slurm-power-bench-") as name:
        folder = Path(name)
        _fill(folder / "telemetry.db", gpus, seconds)
        config = folder / "slurm-power.toml"
        config.write_text(f'[store]\nkind = "sqlite"\npath = "{folder}/telemetry.db"\n')
        out = folder / "report.json"
        since, until = f"@{BEGIN_S:.0f}", f"@{BEGIN_S + seconds:.0f}"
        argv = [sys.executable, "-c", _MEASURED, str(JOB_ID), str(config), since, until, str(out)]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        figures = json.loads(done.stderr.splitlines()[-1])
        samples = json.loads(out.read_text())["data"]["samples"]
        expected = gpus * (seconds - (GAP_S if seconds > GAP_BEGIN_S + GAP_S else 0))
        if samples != expected:
            raise AssertionError(f"{samples} samples in the report, {expected} were made up")
        return {
            "sla_report_s_week_8_gpus": figures["s"],
            "sla_report_cpu_s": figures["cpu_s"],  # of which a busy machine makes a longer time
            "sla_report_peak_rss_bytes": figures["rss"],
            "sla_report_samples": samples,
            "sla_report_store_bytes": (folder / "telemetry.db").stat().st_size,
        }


def _fill(path: Path, gpus: int, seconds: int) -> None:
    store = SqliteStore(path, retention_s=1e10, memory_max_points=10_000_000)
    for number in range(gpus):
        uuid = f"GPU-made-up-{number}"
        tags = {"node": NODE, "uuid": uuid}
        board: dict[str, FieldValue] = {"product": "made-up", "default_cap_watts": 700.0, "slowdown_celsius": 90.0}
        marks: dict[str, FieldValue] = {"job_id": JOB_ID, "uid": 1000}
        store.write(
            [
                Point("gpu_board", BEGIN_S + seconds - 60, board, tags),
                Point("gpu_allocation", BEGIN_S, {**marks, "event": "begin"}, tags),
                Point("gpu_allocation", BEGIN_S + seconds, {**marks, "event": "end"}, tags),
            ]
        )
        store.write(_blocks(uuid, random.Random(number), seconds))
    store.flush(_FLUSH_S)
    store.close()


def _blocks(uuid: str, chance: random.Random, seconds: int) -> list[Point]:
    sealer = Sealer(SEAL_S)
    held_s = 0.0
    blocks = []
    for second in range(seconds):
        if GAP_BEGIN_S <= second < GAP_BEGIN_S + GAP_S:
            continue
        throttled = second % 3600 < 40
        held_s += 0.7 if throttled else 0.0
        moment = GpuMoment(
            BEGIN_S + second + chance.random() * 0.004,
            sm_clock_mhz=1980.0 - 15.0 * chance.randrange(6 if throttled else 2),
            temperature_celsius=float(60 + chance.randrange(4)),
            thermal_margin_celsius=float(27 - chance.randrange(4)),
            utilisation_fraction=0.9 + 0.01 * chance.randrange(10),
            draw_watts=round(chance.gauss(620.0, 15.0), 3),
            cap_watts=700.0,
            power_violation_s=held_s,
            thermal_violation_s=0.0,
            throttle_reasons=0x4 if throttled else 0,
            cap_source="found",
        )
        block = sealer.add(moment)
        blocks += [block] if block else []
    last = sealer.seal()
    return [block_point(block, uuid=uuid, node_name=NODE) for block in [*blocks, *([last] if last else [])]]


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
