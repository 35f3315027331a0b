"""A quality report of a made-up job, as docs/images/quality_report.png shows it: `python -m bench.quality_picture DIR`.

Nothing in it was measured: 4 GPUs train for 8 hours, the operator caps them in the afternoon, one overheats for a
while, and the agent is away for 12 minutes.
"""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

from slurm_power.adapters.telemetry_sqlite import SqliteStore
from slurm_power.cli.main import slurm_power
from slurm_power.daemons.node_agent_samples import block_point
from slurm_power.ports.telemetry_store import FieldValue, Point
from slurm_power.sla.sample import GpuMoment
from slurm_power.sla.seal import Sealer

BEGIN_S, LENGTH_S = 1_795_766_400.0, 8 * 3600  # 2026-11-27 08:00 UTC
JOB_ID, NODE, HOT_GPU = 4711, "gpu07", 2
UUIDS = ("GPU-5b1f60c2-made-up", "GPU-8e04a7d9-made-up", "GPU-c93d12ab-made-up", "GPU-f7702e51-made-up")
AWAY = (7_200, 7_920)
CAPPED, CAP_WATTS = (16_200, 21_600), 450.0
HOT = (10_800, 14_400)


def moment(number: int, second: int, chance: random.Random) -> GpuMoment:
    step = second % 900  # every quarter of an hour a checkpoint
    busy = not 0 <= step - 860 < 25
    capped = CAPPED[0] <= second < CAPPED[1] and busy
    heat = math.sin(math.pi * (second - HOT[0]) / (HOT[1] - HOT[0])) if number == HOT_GPU else 0.0
    heat = max(0.0, heat) if HOT[0] <= second < HOT[1] else 0.0
    wanted = 585.0 + 12.0 * number if busy else 140.0
    temperature = 34.0 + 0.048 * min(wanted, CAP_WATTS if capped else 700.0) + 2.0 * number + 30.0 * heat
    throttled = temperature > 85.0 and busy
    clock = 1530.0 + 15 * chance.randrange(3) if capped else 1980.0 - 15 * chance.randrange(2)
    if throttled:
        clock = 1680.0 - 15 * chance.randrange(12)
    draw = min(wanted * clock / 1980.0, CAP_WATTS) if capped or throttled else wanted
    return GpuMoment(
        BEGIN_S + second + 0.003 * chance.random(),
        sm_clock_mhz=clock,
        temperature_celsius=round(min(temperature, 88.0)),
        thermal_margin_celsius=round(max(87.0 - temperature, 0.0)),
        utilisation_fraction=0.93 + 0.01 * chance.randrange(7) if busy else 0.05,
        draw_watts=round(draw + chance.gauss(0.0, 8.0), 3),
        cap_watts=CAP_WATTS if CAPPED[0] <= second < CAPPED[1] else 700.0,
        throttle_reasons=(0x4 if capped else 0) | (0x20 if throttled else 0),
        cap_source="lease" if CAPPED[0] <= second < CAPPED[1] else "found",
    )


def fill(file: Path) -> None:
    store = SqliteStore(file, retention_s=1e12)
    facts: dict[str, FieldValue] = {
        "job_id": JOB_ID,
        "user_name": "ann",
        "account": "physics",
        "job_name": "pretrain-7b",
    }
    store.write([Point("job", BEGIN_S, facts, {})])
    for number, uuid in enumerate(UUIDS):
        chance, sealer = random.Random(number), Sealer(300.0)
        tags = {"node": NODE, "uuid": uuid}
        board: dict[str, FieldValue] = {"product": "made-up", "default_cap_watts": 700.0, "slowdown_celsius": 90.0}
        ends: dict[str, FieldValue] = {"job_id": JOB_ID, "uid": 1000}
        known = [second for second in range(LENGTH_S + 1) if not AWAY[0] <= second < AWAY[1]]
        blocks = [sealer.add(moment(number, second, chance)) for second in known]
        store.write([block_point(one, uuid=uuid, node_name=NODE) for one in [*blocks, sealer.seal()] if one])
        store.write(
            [
                Point("gpu_board", BEGIN_S, board, tags),
                Point("gpu_allocation", BEGIN_S, {**ends, "event": "begin"}, tags),
                Point("gpu_allocation", BEGIN_S + LENGTH_S, {**ends, "event": "end"}, tags),
            ]
        )
    store.flush(60.0)
    store.close()


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    fill(folder / "telemetry.db")
    config = folder / "slurm-power.toml"
    config.write_text(f'[store]\nkind = "sqlite"\npath = "{folder}/telemetry.db"\nretention_s = 1e12\n')
    period = ["--since", f"@{BEGIN_S:.0f}", "--until", f"@{BEGIN_S + LENGTH_S + 1:.0f}"]
    files = [
        "--html",
        str(folder / "report.html"),
        "--plots",
        str(folder / "plots"),
        "--out",
        str(folder / "report.json"),
    ]
    slurm_power.main(["report", "sla", "--job", str(JOB_ID), "--config", str(config), *period, *files])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
