"""A store with made-up readings of jobs, as agents and controller would have written them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from slurm_power.adapters.telemetry_sqlite import SqliteStore
from slurm_power.daemons.node_agent_samples import block_point
from slurm_power.ports.telemetry_store import FieldValue, Point
from slurm_power.sla.sample import GpuMoment
from slurm_power.sla.seal import sealed
from tests.sla.made_up import BEGIN_S

HOSTILE_NAME = '<script src="https://evil.example/x.js">alert(1)</script>\x1b[31m'
BLOCK_S = 100


class ReportStore:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "telemetry.db"
        self.config = folder / "slurm-power.toml"
        self.config.write_text(f'[store]\nkind = "sqlite"\npath = "{self.file}"\nretention_s = 1e12\n')

    def write(self, points: list[Point]) -> None:
        store = SqliteStore(self.file, retention_s=1e12)
        store.write(points)
        assert store.flush(10.0)
        store.close()

    def add_job(
        self, job_id: int, kind: Callable[[int], GpuMoment], *, uuid: str, length_s: int = 600, account: str = "physics"
    ) -> None:
        """The last BLOCK_S seconds are single points: no block of them is sealed yet."""
        tags = {"node": "n1", "uuid": uuid}
        mark: dict[str, FieldValue] = {"job_id": job_id, "uid": 1000}
        facts: dict[str, FieldValue] = {
            "job_id": job_id,
            "user_name": "ann",
            "account": account,
            "job_name": HOSTILE_NAME,
            "partition": "main",
            "state": "COMPLETED",
        }
        board: dict[str, FieldValue] = {"product": "made-up", "default_cap_watts": 700.0, "slowdown_celsius": 90.0}
        moments = [kind(second) for second in range(length_s)]
        points = [
            Point("job", BEGIN_S + job_id, facts, {}),
            Point("gpu_board", BEGIN_S, board, tags),
            Point("gpu_allocation", BEGIN_S, {**mark, "event": "begin"}, tags),
            Point("gpu_allocation", BEGIN_S + length_s - 1, {**mark, "event": "end"}, tags),
        ]
        for at in range(0, length_s - BLOCK_S, BLOCK_S):
            points.append(block_point(sealed(moments[at : at + BLOCK_S]), uuid=uuid, node_name="n1"))
        points += [single(moment, tags) for moment in moments[-BLOCK_S:]]
        self.write(points)


def single(moment: GpuMoment, tags: dict[str, str]) -> Point:
    names = [name for name in GpuMoment.__slots__ if name != "wall_s"]
    fields = {name: value for name in names if (value := getattr(moment, name)) is not None}
    return Point("gpu", moment.wall_s, fields, tags)
