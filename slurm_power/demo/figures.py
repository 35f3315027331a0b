"""The demo's figures, from the site's own record and Slurm's own job records. Pure.

Nothing here comes from the controller: it is judged by the meter and by Slurm, as a utility and users would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from slurm_power.ess.battery import BatteryLimits, equivalent_full_cycles
from slurm_power.ess.bill import BilledInterval, bill
from slurm_power.ess.tariff import Tariff
from slurm_power.relocation.jobs import Job
from slurm_power.testing.simulated_site.plant import Truth

MANY = 100_000
"""Metering intervals of a billing period that holds the whole run: work that ran late is billed with its day."""

START_TOLERANCE_S = 3.0
"""Two runs of one stream never start a job in the same second; Slurm's scheduler cycle sets this."""


@dataclass(frozen=True, slots=True)
class GridFigures:
    peak_grid_watts: float
    energy_grid_joules: float
    bill_energy: float
    bill_demand: float
    bill_total: float
    battery_cycles: float
    intervals: tuple[BilledInterval, ...]


@dataclass(frozen=True, slots=True)
class JobFigures:
    jobs_submitted: int
    jobs_finished: int
    jobs_lost: int
    jobs_delayed: int
    jobs_capped: int
    jobs_requeued: int
    firm_jobs_affected: int
    mean_delay_s: Mapping[str, float]
    worst_delay_s: Mapping[str, float]


def metered(
    rows: Sequence[Truth], *, start_wall_s: float, end_wall_s: float, interval_s: float
) -> tuple[BilledInterval, ...]:
    """Grid import of every whole metering interval between start and end; each row holds until the next."""
    count = int((end_wall_s - start_wall_s + 1e-6) / interval_s)
    joules = [0.0] * count
    for row, following in pairwise(rows):
        begin_s = row.wall_s
        while begin_s < following.wall_s:
            index = int((begin_s - start_wall_s) // interval_s)
            end_s = min(following.wall_s, start_wall_s + (index + 1) * interval_s)
            if 0 <= index < count:
                joules[index] += row.grid_import_watts * (end_s - begin_s)
            begin_s = end_s if end_s > begin_s else following.wall_s
    return tuple(BilledInterval(start_wall_s + i * interval_s, interval_s, joules[i]) for i in range(count))


def grid_figures(
    rows: Sequence[Truth], *, tariff: Tariff, battery: BatteryLimits, start_wall_s: float, end_wall_s: float
) -> GridFigures:
    intervals = metered(rows, start_wall_s=start_wall_s, end_wall_s=end_wall_s, interval_s=tariff.metering_interval_s)
    one_period_s = tariff.metering_interval_s * MANY
    due = bill(intervals, tariff=replace(tariff, billing_period_s=one_period_s))
    inside = [row for row in rows if start_wall_s <= row.wall_s <= end_wall_s]
    discharged_joules = sum(
        row.battery_discharge_watts * (after.wall_s - row.wall_s) for row, after in pairwise(inside)
    )
    return GridFigures(
        peak_grid_watts=due.peak_watts,
        energy_grid_joules=due.energy_joules,
        bill_energy=due.energy_cost,
        bill_demand=due.demand_cost,
        bill_total=due.total,
        battery_cycles=equivalent_full_cycles(battery, discharged_joules=discharged_joules),
        intervals=intervals,
    )


def job_figures(
    submitted: Mapping[int, str],
    records: Mapping[int, Job],
    *,
    refused: Sequence[str] = (),
    baseline_wait_s: Mapping[str, float],
    acted_on: Mapping[int, frozenset[str]],
) -> JobFigures:
    """What became of the jobs.

    `submitted`: job id -> name; `refused`: names that sbatch would not take (they are lost);
    `baseline_wait_s`: wait of the same names without management (empty: this is that run), beyond which a wait
    is a delay; `acted_on`: job id -> verbs of the controller's decisions about it.
    """
    finished = [job_id for job_id in submitted if job_id in records and records[job_id].raw_state == "COMPLETED"]
    waits = {
        name: wait_s for name, wait_s in ((submitted[i], wait(records[i])) for i in finished) if wait_s is not None
    }
    delays = {name: max(0.0, waits[name] - baseline_wait_s.get(name, waits[name])) for name in waits}
    late = {name for name, delay_s in delays.items() if delay_s > START_TOLERANCE_S}
    firm_touched = {name for job_id, name in submitted.items() if class_of(name) == "firm" and acted_on.get(job_id)}
    classes = sorted({class_of(name) for name in submitted.values()})
    return JobFigures(
        jobs_submitted=len(submitted) + len(refused),
        jobs_finished=len(finished),
        jobs_lost=len(submitted) + len(refused) - len(finished),
        jobs_delayed=len(late),
        jobs_capped=sum("cap" in verbs for verbs in acted_on.values()),
        jobs_requeued=sum("requeue" in verbs for verbs in acted_on.values()),
        firm_jobs_affected=len(firm_touched | {name for name in late if class_of(name) == "firm"}),
        mean_delay_s={c: _mean([d for n, d in delays.items() if class_of(n) == c]) for c in classes},
        worst_delay_s={c: max([d for n, d in delays.items() if class_of(n) == c], default=0.0) for c in classes},
    )


def class_of(name: str) -> str:
    """The demo's job names begin with their class ("plain": no flag)."""
    return name.split("-", 1)[0]


def wait(job: Job) -> float | None:
    return None if job.start_wall_s is None else job.start_wall_s - job.submit_wall_s


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
