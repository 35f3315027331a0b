"""The node agent: samples every GPU, holds each at its effective cap, and gives back what it found.

One thread runs it: the loop calls `tick`, the local socket calls the operations in between.
What a GPU should be held at: node_agent_wants.py and gpu/. How it gets there: node_agent_caps.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from slurm_power.daemons.node_agent_book import AgentBook
from slurm_power.daemons.node_agent_caps import CapKeeper
from slurm_power.daemons.node_agent_config import NodeAgentConfig
from slurm_power.daemons.node_agent_cpus import CpuWatch
from slurm_power.daemons.node_agent_energy import EnergyBook, changed_uuids
from slurm_power.daemons.node_agent_gpu import ManagedGpu
from slurm_power.daemons.node_agent_samples import SampleKeeper
from slurm_power.daemons.node_agent_views import GpuView, gpu_point, gpu_report, node_point
from slurm_power.daemons.node_agent_wants import Wants
from slurm_power.errors import DeviceRefused, NotPermitted, Unavailable
from slurm_power.gpu.allocation import Allocation, NodeGpu
from slurm_power.gpu.job_table import begun, conflicts, ended, lowered, owned, slowed
from slurm_power.gpu.lease import Expired, on_lease, on_time, remaining_s
from slurm_power.gpu.wire import AgentReport, NodeLease
from slurm_power.ports.clock import Clock
from slurm_power.ports.energy_counters import EnergyCounters
from slurm_power.ports.gpu import GpuInventory
from slurm_power.ports.job_presence import Evidence, JobPresence
from slurm_power.ports.telemetry_store import Point, TelemetryStore

__all__ = ["NodeAgent", "NodeAgentConfig"]

log = logging.getLogger(__name__)

_MAX_SHARED = 4096


class NodeAgent:
    def __init__(
        self,
        config: NodeAgentConfig,
        *,
        node_name: str,
        inventory: GpuInventory,
        book: AgentBook,
        presence: JobPresence,
        clock: Clock,
        store: TelemetryStore | None = None,
        monitor_only: bool = False,
        cpu_counters: EnergyCounters | None = None,
    ) -> None:
        self.config = config
        self.node_name = node_name
        self.monitor_only = monitor_only
        self.on_jobs_changed: Callable[[], None] = lambda: None
        self._book = book
        self._presence = presence
        self._clock = clock
        self._store = store
        self._cpus = CpuWatch(cpu_counters)
        self._energy = EnergyBook(node_name=node_name, clock=clock, cpus=self._cpus, base_watts=config.node_base_watts)
        self._samples = SampleKeeper(node_name=node_name, seal_period_s=config.seal_period_s)
        self._wants = Wants(config, book, Expired(since_s=clock.now_s()))
        self._keeper = CapKeeper(self._wants, book=book, inventory=inventory, clock=clock, monitor_only=monitor_only)
        self._seen_at_s: dict[int, float] = {}
        self._shared_jobs: set[int] = set()
        self._batch: list[Point] = []
        self._due_s: dict[str, float] = {}

    # The agent's life

    def start(self) -> None:
        """Take up what an earlier run left: its loans, and its jobs until their processes prove to be gone."""
        self._book.load()
        now_s = self._clock.now_s()
        self._energy.name_life(self._book.clock_ahead_s(self._clock.wall_s() - now_s))
        self._seen_at_s = dict.fromkeys(self._book.jobs, now_s)
        self._keeper.find_gpus()
        log.info(
            "%s: %d GPUs, %d loans, %d jobs",
            self.node_name,
            len(self._keeper.gpus),
            len(self._book.loans),
            len(self.jobs),
        )

    def tick(self) -> None:
        if self._due("rescan", self.config.rescan_period_s):
            self._keeper.find_gpus()
        self._keeper.sample()
        self._drop_absent_jobs()
        self._wants.lease = on_time(self._wants.lease, now_s=self._clock.now_s())
        self._keeper.apply()
        self._book.catch_up()
        self._record()

    def stop(self) -> None:
        """Give everything back; the jobs stay in the journal, so that a restart caps them again."""
        log.info("%s: stopping, giving back %d loans", self.node_name, len(self._book.loans))
        self._keeper.give_back_all()
        self._batch += self._samples.seal_all()
        self._mark_all()
        self._flush()

    # What the world tells

    def hear_lease(self, lease: NodeLease, *, received_at_s: float) -> None:
        self._wants.lease = on_lease(lease, received_at_s=received_at_s)
        self._keeper.apply()

    def begin(self, job: Allocation, *, task: bool) -> None:
        """A job starts. `task`: told from the job's own task, so it may only claim GPUs that nobody holds.

        Raise NotPermitted for such a claim, DeviceRefused for GPUs shared with a job that still runs.
        """
        self._seen_at_s[job.job_id] = self._clock.now_s()
        if task and (job.job_id in self.jobs or not job.uuids):
            return
        others = conflicts(self.jobs, job)
        if task and (others or job.job_id in self._shared_jobs):
            raise NotPermitted(f"job {job.job_id}: its GPUs are held by another job")
        shared = self._still_served(others)
        self._end({other.job_id for other in others}, why="its GPU was given to another job")
        if shared:
            self._note_shared({job.job_id, *shared})
            raise DeviceRefused(f"job {job.job_id}: shares a GPU with job {min(shared)}; shared GPUs are not capped")
        before = self.jobs.get(job.job_id)
        self._book.jobs = begun(self.jobs, job) if job.uuids else ended(self.jobs, {job.job_id})
        if self._book.jobs.get(job.job_id) != before:
            self._book.save()
            self._note(before, job)
            self.on_jobs_changed()
        self._keeper.settle({*job.uuids, *(before.uuids if before else ())})

    def end(self, job_id: int) -> None:
        self._shared_jobs.discard(job_id)
        self._end({job_id}, why="told by Slurm")

    def lower(self, job_id: int, uuid: str, watts: float | None, *, uid: int) -> None:
        """A running job's own wish. Raise NotPermitted and DeviceRefused as gpu.job_table.lowered does."""
        job, gpu = self._own_gpu(job_id, uuid, uid=uid)
        low, high = self._wants.user_range_watts(gpu)
        self._keep_wish(lowered(job, uuid, watts, min_watts=low, max_watts=high), uuid)

    def slow(self, job_id: int, uuid: str, mhz: int | None, *, uid: int) -> None:
        """`lower` for the SM clock."""
        job, gpu = self._own_gpu(job_id, uuid, uid=uid)
        low, high = self._wants.user_range_mhz(gpu)
        self._keep_wish(slowed(job, uuid, mhz, min_mhz=low, max_mhz=high), uuid)

    def keep_points(self, points: Iterable[Point]) -> None:
        self._batch += points

    # What others ask

    @property
    def jobs(self) -> Mapping[int, Allocation]:
        return self._book.jobs

    def node_gpus(self) -> list[NodeGpu]:
        return [gpu.node_gpu() for gpu in self._keeper.gpus]

    def views(self) -> list[GpuView]:
        return self._keeper.views()

    def report(self) -> AgentReport:
        now_s = self._clock.now_s()
        taken = [gpu.taken_at_s for gpu in self._keeper.gpus if gpu.sample is not None and gpu.taken_at_s is not None]
        return AgentReport(
            node_name=self.node_name,
            base_watts=self.config.node_base_watts,
            age_s=now_s - min(taken, default=now_s),
            gpus=tuple(gpu_report(view) for view in self.views()),
            lease_remaining_s=self.lease_remaining_s(),
        )

    def lease_remaining_s(self) -> float | None:
        return remaining_s(self._wants.lease, now_s=self._clock.now_s())

    def _own_gpu(self, job_id: int, uuid: str, *, uid: int) -> tuple[Allocation, ManagedGpu]:
        job, gpu = owned(self.jobs, job_id, uid=uid), self._keeper.gpu(uuid)
        if gpu is None:
            raise NotPermitted(f"job {job_id}: that GPU is not allocated to it")
        return job, gpu

    def _keep_wish(self, job: Allocation, uuid: str) -> None:
        self._book.jobs[job.job_id] = job
        self._book.save()
        self._keeper.settle({uuid})

    # Steps of the tick

    def _drop_absent_jobs(self) -> None:
        if not self.jobs or not self._due("presence", self.config.presence_period_s):
            return
        now_s = self._clock.now_s()
        seen = self._evidence(self.jobs)
        for job_id in self.jobs:
            if seen is None or job_id in seen:
                self._seen_at_s[job_id] = now_s
        grace_s = self.config.absent_grace_s
        self._end(
            {job_id for job_id in self.jobs if now_s - self._seen_at_s.setdefault(job_id, now_s) >= grace_s},
            why="no process of it is left on this node",
        )

    def _record(self) -> None:
        wall_s = self._clock.wall_s()
        views = self.views()
        points = [gpu_point(view, node_name=self.node_name, wall_s=wall_s) for view in views]
        points.append(
            node_point(
                self._keeper.gpus,
                base_watts=self.config.node_base_watts,
                cpu_watts=self._cpus.watts(),
                node_name=self.node_name,
                wall_s=wall_s,
            )
        )
        self._batch += [point for point in points if point is not None]
        self._batch += self._samples.keep(views, wall_s=wall_s)
        self._energy.add(self._keeper.gpus)
        if self._due("marks", self.config.energy_mark_period_s) or self._energy.clock_was_set():
            self._mark_all()
        if self._due("flush", self.config.telemetry_flush_s):
            self._flush()

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        if self._store is not None and batch:
            self._store.write(batch)

    def _end(self, job_ids: Collection[int], *, why: str) -> None:
        gone = [self.jobs[job_id] for job_id in job_ids if job_id in self.jobs]
        for job_id in job_ids:
            self._seen_at_s.pop(job_id, None)
        if not gone:
            return
        self._book.jobs = ended(self.jobs, job_ids)
        self._book.save()
        for job in gone:
            log.info("job %d has ended: %s", job.job_id, why)
            self._note(job, replace(job, uuids=()))
        self.on_jobs_changed()
        self._keeper.settle({uuid for job in gone for uuid in job.uuids})

    def _still_served(self, jobs: Collection[Allocation]) -> set[int]:
        seen = self._evidence({job.job_id: job for job in jobs}) if jobs else {}
        return {job_id for job_id, kind in (seen or {}).items() if kind is Evidence.STEP}

    def _evidence(self, jobs: Mapping[int, Allocation]) -> Mapping[int, Evidence] | None:
        """None: nobody can tell now."""
        try:
            return self._presence.seen({job_id: job.uid for job_id, job in jobs.items()})
        except Unavailable as error:
            log.warning("cannot look for the jobs' processes: %s", error)
            return None

    def _note_shared(self, job_ids: set[int]) -> None:
        if len(self._shared_jobs) > _MAX_SHARED:
            self._shared_jobs.clear()
        self._shared_jobs |= job_ids

    def _note(self, before: Allocation | None, after: Allocation) -> None:
        """Which GPUs a job leaves and takes, each with a reading of this moment."""
        for event, uuids in changed_uuids(before, after).items():
            if uuids:
                self._energy.add(self._keeper.sample_anew(uuids))
                self._batch += self._energy.mark(event, after, uuids, gpu_count=len(self._keeper.gpus))

    def _mark_all(self) -> None:
        self._batch += self._energy.mark_all(self.jobs, self._keeper.gpus)

    def _due(self, what: str, period_s: float) -> bool:
        now_s = self._clock.now_s()
        if now_s < self._due_s.get(what, 0.0):
            return False
        self._due_s[what] = now_s + period_s
        return True
