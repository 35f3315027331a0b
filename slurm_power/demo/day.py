"""One run of the compressed day on the real cluster: submit, watch, wait, collect."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.adapters.telemetry_config import StoreConfig
from slurm_power.adapters.telemetry_open import open_store
from slurm_power.compose import slurm_client
from slurm_power.demo.figures import class_of, grid_figures, job_figures
from slurm_power.demo.history import earlier_points
from slurm_power.demo.result import JobSpan, RunResult
from slurm_power.demo.services import Services
from slurm_power.demo.settings import DemoSettings
from slurm_power.demo.site_files import controller_toml, simulated_site_toml
from slurm_power.demo.stream import DemoJob
from slurm_power.errors import DeviceRefused, Unavailable
from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.tariff import Tariff
from slurm_power.ports.slurm_client import SlurmClient
from slurm_power.relocation.jobs import Job, JobState
from slurm_power.site_config import SiteConfig, read_site_config
from slurm_power.testing.cluster.dev_cluster import DevCluster
from slurm_power.testing.cluster.ports import free_ports
from slurm_power.testing.simulated_site.profile import LoadProfile
from slurm_power.testing.simulated_site.truth_log import read_truth

LEAD_S = 8.0
"""Time for site, agents and controller to start before the day begins."""

POLL_S = 1.0

Progress = Callable[[float, str], None]
"""Told the seconds since the start of the day (negative before it) and what goes on."""


@dataclass(slots=True)
class Watched:
    """What was seen while the day went by."""

    submitted: dict[int, DemoJob] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    waited_for_licenses: set[int] = field(default_factory=set)
    records: dict[int, Job] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DayPlan:
    """What is the same in both runs."""

    settings: DemoSettings
    stream: Sequence[DemoJob]
    profile: LoadProfile
    load_day: str | int
    store: Callable[[str, Path], dict[str, Any]]  # the [store] table of a run


def run_day(
    plan: DayPlan,
    cluster: DevCluster,
    *,
    label: str,
    mode: str,
    baseline_wait_s: dict[str, float],
    progress: Progress,
) -> RunResult:
    """Raise Unavailable when a part of the site does not start."""
    directory = cluster.directory / "runs" / label
    directory.mkdir(parents=True)
    slot_s = plan.settings.slot_s
    start_wall_s = math.ceil((time.time() + LEAD_S) / slot_s) * slot_s
    services = Services(cluster, directory)
    try:
        config = _start(plan, services, mode=mode, start_wall_s=start_wall_s)
        slurm = slurm_client(_demo_slurm(cluster))
        watched = _live_through(plan, cluster, slurm, start_wall_s=start_wall_s, progress=progress)
    finally:
        progress(plan.settings.window_s, "stopping")
        services.stop()
    return _collect(plan, config, watched, directory, label, start_wall_s, baseline_wait_s)


def _start(plan: DayPlan, services: Services, *, mode: str, start_wall_s: float) -> SiteConfig:
    settings, cluster, directory = plan.settings, services.cluster, services.directory
    site_file, config_file = directory / "site.toml", directory / "slurm-power.toml"
    site_file.write_text(
        simulated_site_toml(
            settings,
            start_wall_s=start_wall_s,
            node_state_files=[str(cluster.gpu_state(name)) for name in cluster.node_names()],
            load_day=plan.load_day,
            directory=directory,
        )
    )
    bus_port = services.start_site(site_file)
    config_file.write_text(
        controller_toml(
            settings,
            mode=mode,
            start_wall_s=start_wall_s,
            bus_port=bus_port,
            listen_port=free_ports(1)[0],
            munge_socket=cluster.layout.munge_socket,
            node_directories=cluster.directory / "nodes",
            directory=directory,
            store=plan.store(directory.name, directory),
        )
    )
    config = read_site_config(config_file)
    store = open_store(config.table(StoreConfig))
    store.write(earlier_points(plan.settings, plan.profile, start_wall_s=start_wall_s, until_wall_s=time.time()))
    store.flush(10.0)
    store.close()
    services.start_agents(config_file)
    services.start_controller(config_file)
    return config


def _demo_slurm(cluster: DevCluster) -> SlurmConfig:
    return SlurmConfig(slurm_conf=cluster.layout.slurm_conf, partition="main")


def _live_through(
    plan: DayPlan, cluster: DevCluster, slurm: SlurmClient, *, start_wall_s: float, progress: Progress
) -> Watched:
    watched, waiting = Watched(), list(plan.stream)
    last_poll_s = -math.inf
    while True:
        at_s = time.time() - start_wall_s
        while waiting and waiting[0].submit_after_s <= at_s:
            _submit(cluster, waiting.pop(0), watched)
        if at_s - last_poll_s >= POLL_S:
            last_poll_s = at_s
            _look(slurm, watched)
            progress(at_s, _summary(watched))
        done = not waiting and all(_ended(watched.records.get(job_id)) for job_id in watched.submitted)
        late = at_s >= plan.settings.window_s + plan.settings.drain_s
        if (done and at_s >= plan.settings.window_s) or late:
            return watched
        time.sleep(0.1)


def _submit(cluster: DevCluster, job: DemoJob, watched: Watched) -> None:
    work = f"slurm-power-run -- slurm-power-emulated-load --work-s {job.work_s}"
    try:
        job_id = cluster.sbatch(
            *job.sbatch_options(),
            "--requeue",
            script=f"exec {work} --checkpoint $PWD/checkpoint-$SLURM_JOB_ID",
        )
    except DeviceRefused as refusal:
        watched.refused[job.name] = str(refusal)
    else:
        watched.submitted[job_id] = job


def _look(slurm: SlurmClient, watched: Watched) -> None:
    try:
        jobs = slurm.jobs()
    except Unavailable:
        return  # the next look will tell
    for job in jobs:
        if job.job_id in watched.submitted:
            watched.records[job.job_id] = job
            if job.state is JobState.PENDING and job.state_reason == "Licenses":
                watched.waited_for_licenses.add(job.job_id)


def _ended(job: Job | None) -> bool:
    return (
        job is not None and job.end_wall_s is not None and job.state is JobState.OTHER and job.raw_state != "COMPLETING"
    )


def _summary(watched: Watched) -> str:
    states = [job.state for job in watched.records.values()]
    running, pending = states.count(JobState.RUNNING), states.count(JobState.PENDING)
    return f"{running} running, {pending} waiting, {sum(map(_ended, watched.records.values()))} done"


def _collect(
    plan: DayPlan,
    config: SiteConfig,
    watched: Watched,
    directory: Path,
    label: str,
    start_wall_s: float,
    baseline_wait_s: dict[str, float],
) -> RunResult:
    store = open_store(config.table(StoreConfig))
    decisions = [
        {"wall_s": point.wall_s, "verb": point.tags["verb"], **point.fields}
        for point in store.read("decision", since_wall_s=start_wall_s)
    ]
    targets = [
        (point.wall_s - start_wall_s, float(point.fields["target_watts"]))
        for point in store.read("plan", since_wall_s=start_wall_s)
    ]
    store.close()
    rows = tuple(read_truth(directory / "truth.csv"))
    acted_on = _acted_on(decisions)
    return RunResult(
        label=label,
        start_wall_s=start_wall_s,
        day_s=plan.settings.day_s,
        grid=grid_figures(
            rows,
            tariff=config.table(Tariff),
            battery=config.table(BatteryLimits),
            start_wall_s=start_wall_s,
            end_wall_s=_measured_until(watched, start_wall_s + plan.settings.window_s),
        ),
        jobs=job_figures(
            {job_id: job.name for job_id, job in watched.submitted.items()},
            watched.records,
            refused=list(watched.refused),
            baseline_wait_s=baseline_wait_s,
            acted_on=acted_on,
        ),
        rows=rows,
        spans=tuple(_spans(watched, acted_on, start_wall_s)),
        targets=tuple(targets),
        decisions=tuple(decisions),
    )


def _measured_until(watched: Watched, window_end_wall_s: float) -> float:
    """Work that ran past the window is measured and billed to its end."""
    return max([window_end_wall_s, *(job.end_wall_s or 0.0 for job in watched.records.values())])


def _acted_on(decisions: Sequence[dict[str, Any]]) -> dict[int, frozenset[str]]:
    verbs: dict[int, set[str]] = {}
    for decision in decisions:
        kind, _, number = str(decision["subject"]).partition(" ")
        if kind == "job" and not decision["failure"]:
            verbs.setdefault(int(number), set()).add(str(decision["verb"]))
    return {job_id: frozenset(found) for job_id, found in verbs.items()}


def _spans(watched: Watched, acted_on: dict[int, frozenset[str]], start_wall_s: float) -> list[JobSpan]:
    return [
        JobSpan(
            name=demo_job.name,
            job_class=class_of(demo_job.name),
            gpus=demo_job.gpus,
            submit_s=record.submit_wall_s - start_wall_s,
            start_s=record.start_wall_s - start_wall_s,
            end_s=(record.end_wall_s or record.start_wall_s) - start_wall_s,
            capped="cap" in acted_on.get(job_id, frozenset()),
            deferred="defer" in acted_on.get(job_id, frozenset()),
            waited_for_licenses=job_id in watched.waited_for_licenses,
        )
        for job_id, demo_job in watched.submitted.items()
        if (record := watched.records.get(job_id)) is not None and record.start_wall_s is not None
    ]


def waits_by_name(result: RunResult) -> dict[str, float]:
    return {span.name: span.start_s - span.submit_s for span in result.spans}
