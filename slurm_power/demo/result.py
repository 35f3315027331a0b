"""What one run of the demo's day left behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from slurm_power.demo.figures import GridFigures, JobFigures
from slurm_power.testing.simulated_site.plant import Truth


@dataclass(frozen=True, slots=True)
class JobSpan:
    """One job on the timeline; seconds from the start of the day."""

    name: str
    job_class: str
    gpus: int
    submit_s: float
    start_s: float
    end_s: float
    capped: bool
    deferred: bool
    waited_for_licenses: bool


@dataclass(frozen=True, slots=True)
class RunResult:
    label: str
    start_wall_s: float
    day_s: float
    grid: GridFigures
    jobs: JobFigures
    rows: tuple[Truth, ...]
    spans: tuple[JobSpan, ...]
    targets: tuple[tuple[float, float], ...]  # (seconds from start, target watts)
    decisions: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """The frozen keys first; more may be added."""
        grid, jobs = self.grid, self.jobs
        return {
            "peak_grid_watts": grid.peak_grid_watts,
            "bill_total": grid.bill_total,
            "energy_grid_joules": grid.energy_grid_joules,
            "battery_cycles": grid.battery_cycles,
            "jobs_finished": jobs.jobs_finished,
            "jobs_lost": jobs.jobs_lost,
            "firm_jobs_affected": jobs.firm_jobs_affected,
            "bill_energy": grid.bill_energy,
            "bill_demand": grid.bill_demand,
            "jobs_submitted": jobs.jobs_submitted,
            "jobs_delayed": jobs.jobs_delayed,
            "jobs_capped": jobs.jobs_capped,
            "jobs_requeued": jobs.jobs_requeued,
            "jobs_waited_for_licenses": sum(span.waited_for_licenses for span in self.spans),
            "mean_delay_s": dict(jobs.mean_delay_s),
            "worst_delay_s": dict(jobs.worst_delay_s),
        }
