"""A Slurm that lives in memory: first come first served with backfill, licences as Slurm 22.05 counts them.

A job may start when, for each licence it asks for, total - reserved during its time limit - used now is enough.
Nodes have GPUs and nothing else. Time comes from the clock that is handed in; nothing happens between two calls
that did not have a cause (a submission, an end, a begin time, a reservation's start or end).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from slurm_power.errors import DeviceRefused, Unavailable
from slurm_power.ports.clock import Clock
from slurm_power.relocation.jobs import Job, JobState, LicensePool, LicenseReservation, Node

_FOREVER_S = 365 * 86400.0


@dataclass(slots=True)
class _Entry:
    job: Job
    gpus_per_node: int
    run_s: float  # how long it would run if nothing stopped it

    def end_wall_s(self) -> float:
        assert self.job.start_wall_s is not None
        return self.job.start_wall_s + min(self.run_s, _limit_s(self.job))


class SimulatedSlurmClient:
    def __init__(
        self,
        clock: Clock,
        *,
        node_count: int = 4,
        gpus_per_node: int = 4,
        licenses: Mapping[str, int] | None = None,
        requeue_delay_s: float = 10.0,
        version: str = "22.05.8",
    ) -> None:
        self._clock = clock
        self._gpus_per_node = gpus_per_node
        self._totals = dict(licenses or {"watts": 13200, "firm_watts": 13200})
        self._requeue_delay_s = requeue_delay_s
        self._version = version
        self._up = {f"n{number}": True for number in range(1, node_count + 1)}
        self._free_gpus = dict.fromkeys(self._up, gpus_per_node)
        self._used = dict.fromkeys(self._totals, 0)
        self._entries: dict[int, _Entry] = {}
        self._reservations: dict[str, LicenseReservation] = {}
        self._free_total = node_count * gpus_per_node
        self._settled_wall_s = clock.wall_s()
        self._queue_changed = False
        self._answers = True

    # ---- what a test does to it

    def submit(
        self,
        *,
        gpus: int = 1,
        time_limit_s: float | None = 3600.0,
        run_s: float | None = None,
        licenses: Mapping[str, int] | None = None,
        name: str = "job",
        user_name: str = "root",
        uid: int = 0,
        node_count: int = 1,
        batch: bool = True,
        requeueable: bool = True,
        admin_comment: str = "",
        begin_wall_s: float | None = None,
    ) -> int:
        """Queue a job and return its id. `run_s` None: it runs until its time limit.
        Raise DeviceRefused for more than the cluster has."""
        if self._clock.wall_s() > self._settled_wall_s:
            self._settle()
        wanted = dict(licenses or {})
        self._require_known(wanted)
        per_node = -(-gpus // node_count)
        if per_node > self._gpus_per_node or node_count > len(self._up):
            raise DeviceRefused("Requested node configuration is not available")
        job_id = len(self._entries) + 1
        job = Job(
            job_id=job_id, user_name=user_name, uid=uid, name=name, partition="main", state=JobState.PENDING,
            state_reason="None", gpus=gpus, node_names=(), submit_wall_s=self._clock.wall_s(),
            begin_wall_s=begin_wall_s, start_wall_s=None, time_limit_s=time_limit_s, licenses=wanted, batch=batch,
            requeueable=batch and requeueable, admin_comment=admin_comment, raw_state="PENDING", node_count=node_count,
        )  # fmt: skip
        self._entries[job_id] = _Entry(job, per_node, _FOREVER_S if run_s is None else run_s)
        self._queue_changed = True
        return job_id

    def set_node_up(self, node_name: str, up: bool) -> None:
        """A node that goes down requeues its batch jobs and ends the others, as slurmctld does."""
        self._settle()
        self._up[node_name] = up
        self._queue_changed = True
        if not up:
            for entry in [one for one in self._running() if node_name in one.job.node_names]:
                self._requeue(entry) if entry.job.requeueable else self._end(entry, "NODE_FAIL", self._clock.wall_s())

    def set_answers(self, answers: bool) -> None:
        """False: slurmctld is gone; every call raises Unavailable."""
        self._answers = answers

    # ---- SlurmClient

    def version(self) -> str:
        self._settle()
        return self._version

    def jobs(self) -> Sequence[Job]:
        self._settle()
        return [entry.job for entry in self._entries.values()]

    def nodes(self) -> Sequence[Node]:
        self._settle()
        return [Node(name, self._gpus_per_node, up, self._node_state(name)) for name, up in self._up.items()]

    def license_pools(self) -> Mapping[str, LicensePool]:
        self._settle()
        return {name: LicensePool(name, total, self._used[name]) for name, total in self._totals.items()}

    def license_reservations(self) -> Sequence[LicenseReservation]:
        self._settle()
        return list(self._reservations.values())

    def create_reservation(self, reservation: LicenseReservation) -> None:
        self._settle()
        if reservation.name in self._reservations:
            raise DeviceRefused("Duplicate reservation name")
        self._put(reservation)

    def update_reservation(self, reservation: LicenseReservation) -> None:
        self._settle()
        present = self._reservations.get(reservation.name)
        if present is None:
            raise DeviceRefused("Requested reservation is invalid")
        now_s = self._clock.wall_s()
        if present.start_wall_s <= now_s:
            if reservation.start_wall_s > now_s:
                raise DeviceRefused("Reservation already started")
            reservation = replace(reservation, start_wall_s=present.start_wall_s)
        self._put(reservation)

    def delete_reservation(self, name: str) -> None:
        self._settle()
        self._reservations.pop(name, None)
        self._queue_changed = True

    def update_job(
        self,
        job_id: int,
        *,
        begin_wall_s: float | None = None,
        licenses: Mapping[str, int] | None = None,
        admin_comment: str | None = None,
    ) -> None:
        entry = self._living(job_id)
        job, now_s = entry.job, self._clock.wall_s()
        if admin_comment is not None and any(ord(character) < 32 for character in admin_comment):
            raise DeviceRefused("AdminComment: control characters")
        if begin_wall_s is not None and job.state is not JobState.PENDING:
            raise DeviceRefused("Job is no longer pending execution")
        if licenses is not None:
            self._require_known(licenses)
            self._relicense(entry, licenses)
        if begin_wall_s is not None:
            begin = begin_wall_s if begin_wall_s > now_s else None
            entry.job = replace(entry.job, begin_wall_s=begin, state_reason="BeginTime" if begin else "None")
        if admin_comment is not None:
            entry.job = replace(entry.job, admin_comment=admin_comment)
        self._queue_changed = True

    def requeue(self, job_id: int) -> None:
        entry = self._living(job_id)
        if not entry.job.requeueable:
            raise DeviceRefused("Requested operation is presently disabled")
        self._requeue(entry)
        self._queue_changed = True

    def cancel(self, job_id: int) -> None:
        self._settle()
        entry = self._entries.get(job_id)
        if entry is not None and entry.job.state is not JobState.OTHER:
            self._end(entry, "CANCELLED", self._clock.wall_s())
            self._queue_changed = True

    # ---- what happens as time passes

    def _settle(self) -> None:
        """Live through everything that happened since the last call, in its order."""
        if not self._answers:
            raise Unavailable("Unable to contact slurm controller (connect failure)")
        if self._queue_changed:  # once for many changes: a queue of thousands is filled job by job
            self._queue_changed = False
            self._schedule(self._settled_wall_s)
        now_s = self._clock.wall_s()
        while (event_s := self._next_event_s(now_s)) is not None:
            self._settled_wall_s = event_s
            for entry in self._running():
                if entry.end_wall_s() <= event_s:
                    state = "COMPLETED" if entry.run_s <= _limit_s(entry.job) else "TIMEOUT"
                    self._end(entry, state, entry.end_wall_s())
            ended = [name for name, held in self._reservations.items() if held.end_wall_s <= event_s]
            for name in ended:
                del self._reservations[name]
            self._schedule(event_s)
        self._settled_wall_s = now_s

    def _next_event_s(self, now_s: float) -> float | None:
        times = [entry.end_wall_s() for entry in self._running()]
        times += [held.end_wall_s for held in self._reservations.values()]
        times += [entry.job.begin_wall_s for entry in self._pending() if entry.job.begin_wall_s is not None]
        return min((at_s for at_s in times if self._settled_wall_s < at_s <= now_s), default=None)

    def _schedule(self, now_s: float) -> None:
        """One pass over the queue. The first job that lacks GPUs gets the time at which it will have them;
        later jobs start only if they are over by then. A job that lacks licences holds nobody back."""
        shadow_s: float | None = None
        for entry in list(self._pending()):
            job = entry.job
            nodes = None
            if job.begin_wall_s is not None and job.begin_wall_s > now_s:
                reason = "BeginTime"
            elif not self._licenses_fit(job, now_s):
                reason = "Licenses"
            elif shadow_s is not None and now_s + _limit_s(job) > shadow_s:
                reason = "Priority"
            else:
                nodes = self._find_nodes(entry)
                reason = "None" if nodes else "Resources"
            if nodes:
                self._start(entry, nodes, now_s)
                continue
            if reason == "Resources" and shadow_s is None:
                shadow_s = self._gpus_free_at_s(job.gpus)
            if job.state_reason != reason:
                entry.job = replace(job, state_reason=reason)

    def _licenses_fit(self, job: Job, now_s: float) -> bool:
        end_s = now_s + _limit_s(job)
        return all(
            count <= self._totals[name] - self._used[name] - self._reserved(name, now_s, end_s)
            for name, count in job.licenses.items()
        )

    def _reserved(self, name: str, start_s: float, end_s: float) -> int:
        """Sum over the reservations that overlap the run, as Slurm counts them; not their highest sum at a time."""
        overlapping = (
            held for held in self._reservations.values() if held.start_wall_s < end_s and held.end_wall_s > start_s
        )
        return sum(held.licenses.get(name, 0) for held in overlapping)

    def _find_nodes(self, entry: _Entry) -> tuple[str, ...] | None:
        wanted = entry.job.node_count
        found: list[str] = []
        if self._free_total < entry.gpus_per_node * wanted:
            return None
        for name, free in self._free_gpus.items():
            if free >= entry.gpus_per_node and self._up[name]:
                found.append(name)
                if len(found) == wanted:
                    return tuple(found)
        return None

    def _gpus_free_at_s(self, gpus: int) -> float:
        free = sum(free for name, free in self._free_gpus.items() if self._up[name])
        for entry in sorted(self._running(), key=_Entry.end_wall_s):
            free += entry.job.gpus
            if free >= gpus:
                assert entry.job.start_wall_s is not None
                return entry.job.start_wall_s + _limit_s(entry.job)
        return self._clock.wall_s() + _FOREVER_S

    def _start(self, entry: _Entry, nodes: tuple[str, ...], now_s: float) -> None:
        for name in nodes:
            self._free_gpus[name] -= entry.gpus_per_node
            self._free_total -= entry.gpus_per_node
        self._count(entry.job.licenses, +1)
        entry.job = replace(
            entry.job, state=JobState.RUNNING, raw_state="RUNNING", state_reason="None", node_names=nodes,
            start_wall_s=now_s, begin_wall_s=None,
        )  # fmt: skip

    def _leave(self, entry: _Entry) -> None:
        if entry.job.state is JobState.RUNNING:
            for name in entry.job.node_names:
                self._free_gpus[name] += entry.gpus_per_node
                self._free_total += entry.gpus_per_node
            self._count(entry.job.licenses, -1)

    def _end(self, entry: _Entry, raw_state: str, at_s: float) -> None:
        self._leave(entry)
        entry.job = replace(
            entry.job, state=JobState.OTHER, raw_state=raw_state, state_reason="None", end_wall_s=at_s
        )  # fmt: skip

    def _requeue(self, entry: _Entry) -> None:
        """Back into the queue; it waits for the delay that slurmctld imposes (cred_expire)."""
        self._leave(entry)
        entry.job = replace(
            entry.job, state=JobState.PENDING, raw_state="PENDING", state_reason="BeginTime", node_names=(),
            start_wall_s=None, begin_wall_s=self._clock.wall_s() + self._requeue_delay_s,
        )  # fmt: skip

    def _relicense(self, entry: _Entry, licenses: Mapping[str, int]) -> None:
        """Of a running job too; Slurm lets the pool be overdrawn then."""
        if entry.job.state is JobState.RUNNING:
            self._count(entry.job.licenses, -1)
            self._count(licenses, +1)
        entry.job = replace(entry.job, licenses=dict(licenses))

    def _count(self, licenses: Mapping[str, int], sign: int) -> None:
        for name, count in licenses.items():
            self._used[name] += sign * count

    def _put(self, reservation: LicenseReservation) -> None:
        self._require_known(reservation.licenses)
        if reservation.end_wall_s <= max(reservation.start_wall_s, self._clock.wall_s()):
            raise DeviceRefused("Requested reservation is invalid: its end is over or before its start")
        self._reservations[reservation.name] = reservation
        self._queue_changed = True

    def _require_known(self, licenses: Mapping[str, int]) -> None:
        for name, count in licenses.items():
            if name not in self._totals or not 0 <= count <= self._totals[name]:
                raise DeviceRefused(f"Invalid license specification: {name}:{count}")

    def _living(self, job_id: int) -> _Entry:
        self._settle()
        entry = self._entries.get(job_id)
        if entry is None or entry.job.state is JobState.OTHER:
            raise DeviceRefused(f"Invalid job id specified for job {job_id}")
        return entry

    def _node_state(self, name: str) -> str:
        if not self._up[name]:
            return "DOWN"
        return "IDLE" if self._free_gpus[name] == self._gpus_per_node else "MIXED"

    def _running(self) -> list[_Entry]:
        return [entry for entry in self._entries.values() if entry.job.state is JobState.RUNNING]

    def _pending(self) -> Iterator[_Entry]:
        return (entry for entry in self._entries.values() if entry.job.state is JobState.PENDING)


def _limit_s(job: Job) -> float:
    return _FOREVER_S if job.time_limit_s is None else job.time_limit_s
