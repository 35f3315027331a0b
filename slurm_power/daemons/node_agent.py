"""The node agent: samples every GPU, holds each at its effective cap, and gives back what it found.

One thread runs it: the loop calls `tick`, the local socket calls the operations in between.
Which cap holds is decided in gpu/; nothing here compares watts.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

from slurm_power.daemons.node_agent_book import AgentBook
from slurm_power.daemons.node_agent_config import NodeAgentConfig
from slurm_power.daemons.node_agent_gpu import ManagedGpu
from slurm_power.daemons.node_agent_views import GpuView, allocation_point, gpu_point, gpu_report, node_point
from slurm_power.errors import DeviceError, DeviceRefused, NotPermitted, Unavailable
from slurm_power.gpu.allocation import Allocation, NodeGpu
from slurm_power.gpu.borrowing import Borrow, GiveBack, Keep, Knob, Loan, Step, cap_step, clock_step
from slurm_power.gpu.caps import CapSources, ClockSources, EffectiveCap, EffectiveClock, effective_cap, effective_clock
from slurm_power.gpu.job_table import begun, conflicts, ended, holder_of, lowered, owned
from slurm_power.gpu.lease import (
    Expired,
    LeaseState,
    lease_cap_watts,
    lease_clock_mhz,
    on_lease,
    on_time,
    remaining_s,
    safe_cap_in_force_watts,
)
from slurm_power.gpu.wire import AgentReport, NodeLease
from slurm_power.ports.clock import Clock
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
    ) -> None:
        self.config = config
        self.node_name = node_name
        self.monitor_only = monitor_only
        self._inventory = inventory
        self._book = book
        self._presence = presence
        self._clock = clock
        self._store = store
        self._gpus: dict[str, ManagedGpu] = {}
        self._lease: LeaseState = Expired(since_s=clock.now_s())
        self._seen_at_s: dict[int, float] = {}
        self._shared_jobs: set[int] = set()
        self._batch: list[Point] = []
        self._due_s: dict[str, float] = {}

    # The agent's life

    def start(self) -> None:
        """Take up what an earlier run left: its loans, and its jobs until their processes prove to be gone."""
        self._book.load()
        now_s = self._clock.now_s()
        self._seen_at_s = dict.fromkeys(self._book.jobs, now_s)
        self._find_gpus()
        log.info(
            "%s: %d GPUs, %d loans, %d jobs", self.node_name, len(self._gpus), len(self._book.loans), len(self.jobs)
        )

    def tick(self) -> None:
        self._sample()
        self._drop_absent_jobs()
        self._lease = on_time(self._lease, now_s=self._clock.now_s())
        self._apply(self._gpus.values())
        self._book.catch_up()
        self._record()

    def stop(self) -> None:
        """Give everything back; the jobs stay in the journal, so that a restart caps them again."""
        log.info("%s: stopping, giving back %d loans", self.node_name, len(self._book.loans))
        steps = [
            (self._gpus[uuid], knob, GiveBack(loan.found))
            for (uuid, knob), loan in self._book.loans.items()
            if uuid in self._gpus
        ]
        self._carry_out(steps)
        self._flush()

    # What the world tells

    def hear_lease(self, lease: NodeLease, *, received_at_s: float) -> None:
        self._lease = on_lease(lease, received_at_s=received_at_s)
        self._apply(self._gpus.values())

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
            self._note(job, "begin")
        self._settle({*job.uuids, *(before.uuids if before else ())})

    def end(self, job_id: int) -> None:
        self._shared_jobs.discard(job_id)
        self._end({job_id}, why="told by Slurm")

    def lower(self, job_id: int, uuid: str, watts: float | None, *, uid: int) -> None:
        """A running job's own wish. Raise NotPermitted and DeviceRefused as gpu.job_table.lowered does."""
        job = owned(self.jobs, job_id, uid=uid)
        gpu = self._gpus.get(uuid)
        if gpu is None:
            raise NotPermitted(f"job {job_id}: that GPU is not allocated to it")
        low, high = self._user_range(gpu)
        self._book.jobs[job_id] = lowered(job, uuid, watts, min_watts=low, max_watts=high)
        self._book.save()
        self._settle({uuid})

    def keep_points(self, points: Iterable[Point]) -> None:
        self._batch += points

    # What others ask

    @property
    def jobs(self) -> Mapping[int, Allocation]:
        return self._book.jobs

    def node_gpus(self) -> list[NodeGpu]:
        return [gpu.node_gpu() for gpu in self._gpus.values()]

    def views(self) -> list[GpuView]:
        return [self._view(gpu) for gpu in self._gpus.values()]

    def report(self) -> AgentReport:
        now_s = self._clock.now_s()
        taken = [gpu.taken_at_s for gpu in self._gpus.values() if gpu.sample is not None and gpu.taken_at_s is not None]
        return AgentReport(
            node_name=self.node_name,
            base_watts=self.config.node_base_watts,
            age_s=now_s - min(taken, default=now_s),
            gpus=tuple(gpu_report(view) for view in self.views()),
            lease_remaining_s=self.lease_remaining_s(),
        )

    def lease_remaining_s(self) -> float | None:
        return remaining_s(self._lease, now_s=self._clock.now_s())

    # Steps of the tick

    def _find_gpus(self) -> None:
        """Look the boards up: at start, and from then on for those that are lost or come late."""
        try:
            found = [ManagedGpu(gpu) for gpu in self._inventory.gpus()]
        except (DeviceError, Unavailable) as error:
            log.error("cannot list the GPUs: %s", error)
            return
        for managed in found:
            known = self._gpus.setdefault(managed.uuid, managed)
            if known.lost:
                known.replace_device(managed)

    def _sample(self) -> None:
        now_s = self._clock.now_s()
        if self._due("rescan", self.config.rescan_period_s):
            self._find_gpus()
        for gpu in self._gpus.values():
            came_back = gpu.take_sample(now_s=now_s)
            if came_back and gpu.board_was_reset():
                gpu.last_set.clear()
                self._book.strike_out([(gpu.uuid, knob) for knob in Knob])

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

    def _apply(self, gpus: Iterable[ManagedGpu]) -> None:
        """Bring every GPU to its effective cap and clock."""
        if self.monitor_only:
            return
        steps = [(gpu, knob, step) for gpu in gpus for knob, step in self._steps(gpu) if not isinstance(step, Keep)]
        self._carry_out(steps)

    def _steps(self, gpu: ManagedGpu) -> list[tuple[Knob, Step]]:
        cap = self._wanted_cap(gpu)
        if gpu.enforced_watts is None or cap is None:
            return []
        loans = self._book.loans
        if (gpu.uuid, Knob.CAP) in loans:
            gpu.note_held_cap(cap.watts)
        return [
            (
                Knob.CAP,
                cap_step(
                    cap,
                    enforced_watts=gpu.enforced_watts,
                    loan=loans.get((gpu.uuid, Knob.CAP)),
                    last_set_watts=gpu.last_set.get(Knob.CAP),
                ),
            ),
            (
                Knob.CLOCK,
                clock_step(
                    self._wanted_clock(gpu),
                    loan=loans.get((gpu.uuid, Knob.CLOCK)),
                    last_set_mhz=gpu.last_set.get(Knob.CLOCK),
                ),
            ),
        ]

    def _carry_out(self, steps: Sequence[tuple[ManagedGpu, Knob, Step]]) -> None:
        """The journal first, then every board, whatever the one before it said."""
        now_s = self._clock.now_s()
        borrowed = [(gpu, knob) for gpu, knob, step in steps if isinstance(step, Borrow)]
        try:
            if borrowed:
                self._book.lend([self._loan(gpu, knob) for gpu, knob in borrowed])
        except Unavailable as error:
            for gpu, _ in borrowed:
                gpu.refuse(f"not capped, for it could not be given back after a crash: {error}")
            steps = [entry for entry in steps if not isinstance(entry[2], Borrow)]
        returned: list[tuple[str, Knob]] = []
        for gpu, knob, step in steps:
            if gpu.carry_out(knob, step, now_s=now_s) and isinstance(step, GiveBack):
                returned.append((gpu.uuid, knob))
        if returned:
            self._book.strike_out(returned)

    def _record(self) -> None:
        wall_s = self._clock.wall_s()
        points = [gpu_point(view, node_name=self.node_name, wall_s=wall_s) for view in self.views()]
        points.append(
            node_point(
                self._gpus.values(), base_watts=self.config.node_base_watts, node_name=self.node_name, wall_s=wall_s
            )
        )
        self._batch += [point for point in points if point is not None]
        if self._due("flush", self.config.telemetry_flush_s):
            self._flush()

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        if self._store is not None and batch:
            self._store.write(batch)

    # Small questions

    def _wanted_cap(self, gpu: ManagedGpu) -> EffectiveCap | None:
        loan = self._book.loans.get((gpu.uuid, Knob.CAP))
        found_watts = loan.found if loan is not None else gpu.enforced_watts
        if found_watts is None:
            return None
        safe_watts = self.config.safe_cap_watts if self.config.controller_url else None
        return effective_cap(
            CapSources(
                found_watts=found_watts,
                min_watts=gpu.limits.min_cap_watts,
                max_watts=gpu.limits.max_cap_watts,
                user_watts=self._user_cap_watts(gpu),
                lease_watts=lease_cap_watts(self._lease, gpu.uuid),
                safe_watts=safe_cap_in_force_watts(self._lease, safe_cap_watts=safe_watts),
            )
        )

    def _wanted_clock(self, gpu: ManagedGpu) -> EffectiveClock:
        job = holder_of(self.jobs, gpu.uuid)
        return effective_clock(
            ClockSources(
                min_mhz=gpu.limits.min_sm_clock_mhz,
                max_mhz=gpu.limits.max_sm_clock_mhz,
                user_mhz=job.options.gpu_clock_mhz if job else None,
                lease_mhz=lease_clock_mhz(self._lease, gpu.uuid),
            )
        )

    def _user_cap_watts(self, gpu: ManagedGpu) -> float | None:
        """The job's cap, brought inside the site's range: submission has refused what lies outside already."""
        job = holder_of(self.jobs, gpu.uuid)
        watts = job.user_cap_watts(gpu.uuid) if job else None
        low, high = self._user_range(gpu)
        return None if watts is None else max(low, min(watts, high))

    def _user_range(self, gpu: ManagedGpu) -> tuple[float, float]:
        low, high = self.config.min_user_cap_watts, self.config.max_user_cap_watts
        return (
            max(gpu.limits.min_cap_watts, low if low is not None else 0.0),
            min(gpu.limits.max_cap_watts, high if high is not None else gpu.limits.max_cap_watts),
        )

    def _loan(self, gpu: ManagedGpu, knob: Knob) -> Loan:
        job = holder_of(self.jobs, gpu.uuid)
        return Loan(
            uuid=gpu.uuid,
            knob=knob,
            found=gpu.enforced_watts if knob is Knob.CAP else None,
            default_watts=gpu.limits.default_cap_watts,
            min_watts=gpu.limits.min_cap_watts,
            max_watts=gpu.limits.max_cap_watts,
            boot_id=self._book.boot_id,
            job_id=job.job_id if job else None,
        )

    def _view(self, gpu: ManagedGpu) -> GpuView:
        job = holder_of(self.jobs, gpu.uuid)
        return GpuView(gpu, self._wanted_cap(gpu), self._wanted_clock(gpu), job.job_id if job else None)

    def _settle(self, uuids: Collection[str]) -> None:
        """Bring these GPUs to their new caps now, not at the next tick."""
        gpus = [gpu for gpu in self._gpus.values() if gpu.uuid in uuids and not gpu.lost]
        for gpu in gpus:
            gpu.refresh_enforced()
        self._apply(gpus)

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
            self._note(job, "end")
        self._settle({uuid for job in gone for uuid in job.uuids})

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

    def _note(self, job: Allocation, event: str) -> None:
        wall_s = self._clock.wall_s()
        self._batch += [
            allocation_point(uuid, job_id=job.job_id, uid=job.uid, event=event, node_name=self.node_name, wall_s=wall_s)
            for uuid in job.uuids
        ]

    def _due(self, what: str, period_s: float) -> bool:
        now_s = self._clock.now_s()
        if now_s < self._due_s.get(what, 0.0):
            return False
        self._due_s[what] = now_s + period_s
        return True
