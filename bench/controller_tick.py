"""How long one tick of the controller takes with 1,000 nodes and 10,000 jobs. Slurm's own answering time is not in it:
the simulated Slurm decides once who runs, and its scheduling (Python, not slurmctld) is not the controller's work.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.console import Console

from bench.large_site import LargeSite
from slurm_power.daemons.controller import Controller
from slurm_power.errors import Unavailable
from slurm_power.relocation.jobs import Job, JobState, LicensePool, LicenseReservation, Node
from slurm_power.testing.simulated_slurm import SimulatedSlurmClient

TICKS = 9
TICK_PERIOD_S = 60.0


class QuickSlurm:
    """Answers from memory with what the simulated Slurm decided, and with what was changed since.
    Nobody starts or ends: the bench looks at a few minutes only."""

    def __init__(self, slurm: SimulatedSlurmClient) -> None:
        self._slurm = slurm
        self._jobs = {job.job_id: job for job in slurm.jobs()}
        self._reservations: dict[str, LicenseReservation] = {}
        self.requests = 0

    def version(self) -> str:
        return self._slurm.version()

    def jobs(self) -> Sequence[Job]:
        return list(self._jobs.values())

    def nodes(self) -> Sequence[Node]:
        return self._slurm.nodes()

    def license_pools(self) -> Mapping[str, LicensePool]:
        return self._slurm.license_pools()

    def license_reservations(self) -> Sequence[LicenseReservation]:
        return list(self._reservations.values())

    def create_reservation(self, reservation: LicenseReservation) -> None:
        self.requests += 1
        self._reservations[reservation.name] = reservation

    def update_reservation(self, reservation: LicenseReservation) -> None:
        self.create_reservation(reservation)

    def delete_reservation(self, name: str) -> None:
        self.requests += 1
        self._reservations.pop(name, None)

    def update_job(
        self,
        job_id: int,
        *,
        begin_wall_s: float | None = None,
        licenses: Mapping[str, int] | None = None,
        admin_comment: str | None = None,
    ) -> None:
        self.requests += 1
        job = self._jobs[job_id]
        self._jobs[job_id] = replace(
            job,
            begin_wall_s=job.begin_wall_s if begin_wall_s is None else begin_wall_s,
            licenses=job.licenses if licenses is None else licenses,
            admin_comment=job.admin_comment if admin_comment is None else admin_comment,
        )

    def requeue(self, job_id: int) -> None:
        self.requests += 1
        job = self._jobs[job_id]
        self._jobs[job_id] = replace(job, state=JobState.PENDING, node_names=(), start_wall_s=None)

    def cancel(self, job_id: int) -> None:
        self.requests += 1
        del self._jobs[job_id]


def measure() -> float:
    """Median seconds of a tick; each tick is printed with the number of requests it makes to Slurm."""
    site = LargeSite()
    slurm = QuickSlurm(site.slurm)
    controller = site.controller(slurm)
    console = Console(highlight=False)
    times_s = []
    for number in range(1, TICKS + 1):
        site.report_nodes(slurm.jobs())
        controller.fast_tick()
        started_s = time.perf_counter()
        controller.tick()
        times_s.append(time.perf_counter() - started_s)
        console.print(f"tick {number}: {times_s[-1]:.3f} s, {slurm.requests} requests to Slurm")
        _require_whole(controller)
        site.clock.advance(TICK_PERIOD_S)
        slurm.requests = 0
    console.print(f"first {times_s[0]:.3f} s, median {statistics.median(times_s):.3f} s, worst {max(times_s):.3f} s")
    return statistics.median(times_s)


def _require_whole(controller: Controller) -> None:
    """A tick that gave up half way would look fast."""
    status = controller.status()
    if status["failures"] or status["target_watts"] is None:
        raise Unavailable(f"the tick could not plan: {status['failures']}")


if __name__ == "__main__":
    measure()
