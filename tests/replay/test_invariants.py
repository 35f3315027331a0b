"""What holds for any trace and any orders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_power.relocation.jobs import PowerClass
from slurm_power.replay.job_table import FIRM_CODE, Phase
from slurm_power.replay.policy import Orders, View
from slurm_power.replay.results import Replay
from slurm_power.replay.trace import TraceJob
from slurm_power.replay.twin import replay
from tests.replay.made_up import Scripted, config

NODES, GPUS_PER_NODE = 3, 4


@st.composite
def traces(draw: st.DrawFn) -> list[TraceJob]:
    count = draw(st.integers(1, 25))
    return [_drawn_job(draw, number) for number in range(1, count + 1)]


def _drawn_job(draw: st.DrawFn, number: int) -> TraceJob:
    runtime_s = float(draw(st.integers(1, 400)))
    slack = draw(st.sampled_from([1.0, 1.5, 4.0, None]))
    return TraceJob(
        job_id=number,
        user="ada",
        submit_s=float(draw(st.integers(0, 600))),
        gpus=draw(st.sampled_from([1, 1, 2, 3, 4, 6, 8, 12, 13])),
        nodes=draw(st.sampled_from([None, None, None, 2])),
        runtime_s=runtime_s,
        time_limit_s=None if slack is None else runtime_s * slack,
        power_class=draw(st.sampled_from(list(PowerClass))),
    )


class Erratic:
    """Any order to any job, by chance; calm after slot 12, so that the run ends."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.broken: list[str] = []

    def decide(self, view: View) -> Orders:
        self._look(view)
        if view.slot > 12:
            return Orders()
        running, pending = view.running.job_id.tolist(), view.pending.job_id.tolist()
        return Orders(
            budget_watts=self._rng.uniform(0, 1500, 4).tolist() if self._one_in(2) else None,
            caps={job_id: float(self._rng.uniform(10, 120)) for job_id in running if self._one_in(2)},
            holds={job_id: view.now_s + float(self._rng.uniform(0, 300)) for job_id in pending if self._one_in(3)},
            requeues=[job_id for job_id in running if self._one_in(6)],
            suspended=frozenset(job_id for job_id in running if self._one_in(6)),
        )

    def _one_in(self, chances: int) -> bool:
        return bool(self._rng.integers(chances) == 0)

    def _look(self, view: View) -> None:
        drawn_watts = view.running.draw_watts.sum() + view.idle_watts
        if drawn_watts != pytest.approx(view.it_watts, abs=1e-6):
            self.broken.append(f"jobs and idle parts draw {drawn_watts}, the meter says {view.it_watts}")
        if not 0 <= view.running_gpus <= NODES * GPUS_PER_NODE - view.free_gpus:
            self.broken.append(f"{view.running_gpus} GPUs run, {view.free_gpus} are free")


@settings(max_examples=150)
@given(trace=traces(), seed=st.integers(0, 10_000), interval_s=st.sampled_from([0.0, 30.0]))
def test_nothing_is_lost_doubled_or_oversubscribed_whatever_is_ordered(trace, seed, interval_s):
    policy = Erratic(seed)
    run = replay(trace, config(NODES, GPUS_PER_NODE, backfill_interval_s=interval_s, requeue_delay_s=7.0), policy)
    assert not policy.broken
    _every_job_ends_once(run, trace)
    _energy_is_conserved(run)
    _work_is_conserved(run, trace)


def _every_job_ends_once(run: Replay, trace: list[TraceJob]) -> None:
    jobs = run.jobs
    refused = jobs.phase == Phase.REFUSED
    assert set(jobs.phase.tolist()) <= {Phase.FINISHED, Phase.TIMED_OUT, Phase.REFUSED}
    assert np.isnan(jobs.end_s[refused]).all()
    assert (jobs.end_s[~refused] >= jobs.first_start_s[~refused]).all()
    assert (jobs.first_start_s[~refused] >= jobs.submit_s[~refused]).all()
    starts = np.bincount([one.job_id for one in run.starts], minlength=len(trace) + 1)[1:]
    assert (starts[~refused] == jobs.requeues[~refused] + 1).all()


def _energy_is_conserved(run: Replay) -> None:
    assert run.jobs.joules.sum() == pytest.approx(run.job_joules, rel=1e-9, abs=1e-3)
    assert run.jobs.joules.sum() + run.idle_joules == pytest.approx(run.it_joules, rel=1e-9)


def _work_is_conserved(run: Replay, trace: list[TraceJob]) -> None:
    jobs = run.jobs
    runtime_s = np.array([job.runtime_s for job in trace])
    finished, timed_out = jobs.phase == Phase.FINISHED, jobs.phase == Phase.TIMED_OUT
    assert jobs.done_s[finished] == pytest.approx(runtime_s[finished])
    assert (jobs.done_s[timed_out] < runtime_s[timed_out]).all()
    at_most_s = jobs.done_s + jobs.lost_gpu_s / jobs.gpus
    assert (jobs.ran_s >= at_most_s - 1e-6).all()


@settings(max_examples=100)
@given(trace=traces())
def test_without_orders_jobs_run_as_long_as_they_need_on_gpus_that_exist(trace):
    run = replay(trace, config(NODES, GPUS_PER_NODE))
    jobs = run.jobs
    ran = jobs.phase == Phase.FINISHED
    runtime_s = np.array([job.runtime_s for job in trace])
    assert (jobs.end_s - jobs.first_start_s)[ran] == pytest.approx(runtime_s[ran])
    for moment_s in jobs.first_start_s[ran]:
        on = ran & (jobs.first_start_s <= moment_s) & (moment_s < jobs.end_s - 1e-9)
        assert jobs.gpus[on].sum() <= NODES * GPUS_PER_NODE


@settings(max_examples=100)
@given(trace=traces(), budget_watts=st.integers(300, 1400))
def test_licensed_watts_never_exceed_the_budget(trace, budget_watts):
    seen: list[float] = []

    def decide(view: View) -> Orders:
        bound = view.running.power_class != FIRM_CODE
        seen.append(float(view.running.licensed_watts[bound].sum()))
        return Orders(budget_watts=[float(budget_watts)] * 10)

    replay(trace, config(NODES, GPUS_PER_NODE, stall_s=500.0), Scripted(decide), until_s=3000.0)
    assert max(seen) <= budget_watts + 1e-6


@settings(max_examples=100)
@given(trace=traces())
def test_the_first_in_the_queue_never_starts_later_for_those_behind_it(trace):
    """With limits kept to the second, whoever is first when he comes to wait starts as if nobody came after him."""
    exact = [replace(job, time_limit_s=job.runtime_s) for job in trace]
    ordered = sorted(exact, key=lambda job: (job.submit_s, job.job_id))
    whole = replay(ordered, config(NODES, GPUS_PER_NODE))
    start_s = dict(zip(whole.jobs.job_id.tolist(), whole.jobs.first_start_s.tolist(), strict=True))
    for place, job in enumerate(ordered):
        waits_first = all(not start_s[one.job_id] > job.submit_s for one in ordered[:place])
        if waits_first and not np.isnan(start_s[job.job_id]):
            alone = replay(ordered[: place + 1], config(NODES, GPUS_PER_NODE))
            assert start_s[job.job_id] <= alone.jobs.first_start_s[-1] + 1e-6
