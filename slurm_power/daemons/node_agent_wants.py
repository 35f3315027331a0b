"""What every GPU should be held at now, and the step that leads there. Asks gpu/ and the book; touches no board."""

from __future__ import annotations

from slurm_power.daemons.node_agent_book import AgentBook
from slurm_power.daemons.node_agent_config import NodeAgentConfig
from slurm_power.daemons.node_agent_gpu import ManagedGpu
from slurm_power.daemons.node_agent_views import GpuView
from slurm_power.gpu.borrowing import Knob, Loan, Step, cap_step, clock_step
from slurm_power.gpu.caps import CapSources, ClockSources, EffectiveCap, EffectiveClock, effective_cap, effective_clock
from slurm_power.gpu.job_table import holder_of
from slurm_power.gpu.lease import LeaseState, lease_cap_watts, lease_clock_mhz, safe_cap_in_force_watts


class Wants:
    def __init__(self, config: NodeAgentConfig, book: AgentBook, lease: LeaseState) -> None:
        self._config = config
        self._book = book
        self.lease = lease

    def view(self, gpu: ManagedGpu) -> GpuView:
        job = holder_of(self._book.jobs, gpu.uuid)
        return GpuView(gpu, self._cap(gpu), self._clock(gpu), job.job_id if job else None)

    def steps(self, gpu: ManagedGpu) -> list[tuple[Knob, Step]]:
        """Nothing while the board does not answer."""
        cap = self._cap(gpu)
        if gpu.enforced_watts is None or cap is None:
            return []
        cap_loan = self._book.loans.get((gpu.uuid, Knob.CAP))
        clock_loan = self._book.loans.get((gpu.uuid, Knob.CLOCK))
        if cap_loan is not None:
            gpu.note_held_cap(cap.watts)
        last_cap, last_clock = gpu.last_set.get(Knob.CAP), gpu.last_set.get(Knob.CLOCK)
        return [
            (Knob.CAP, cap_step(cap, enforced_watts=gpu.enforced_watts, loan=cap_loan, last_set_watts=last_cap)),
            (Knob.CLOCK, clock_step(self._clock(gpu), loan=clock_loan, last_set_mhz=last_clock)),
        ]

    def loan(self, gpu: ManagedGpu, knob: Knob) -> Loan:
        """What stands on the board now, to be given back later."""
        job = holder_of(self._book.jobs, gpu.uuid)
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

    def user_range_watts(self, gpu: ManagedGpu) -> tuple[float, float]:
        """Where a user's cap may lie: the site's range inside the board's."""
        low, high = self._config.min_user_cap_watts, self._config.max_user_cap_watts
        return (
            max(gpu.limits.min_cap_watts, low if low is not None else 0.0),
            min(gpu.limits.max_cap_watts, high if high is not None else gpu.limits.max_cap_watts),
        )

    def user_range_mhz(self, gpu: ManagedGpu) -> tuple[int, int]:
        """The same for a user's clock."""
        low, high = self._config.min_user_clock_mhz, self._config.max_user_clock_mhz
        return (
            max(gpu.limits.min_sm_clock_mhz, low if low is not None else 0),
            min(gpu.limits.max_sm_clock_mhz, high if high is not None else gpu.limits.max_sm_clock_mhz),
        )

    def _cap(self, gpu: ManagedGpu) -> EffectiveCap | None:
        loan = self._book.loans.get((gpu.uuid, Knob.CAP))
        found_watts = loan.found if loan is not None else gpu.enforced_watts
        if found_watts is None:
            return None
        safe_watts = self._config.safe_cap_watts if self._config.controller_url else None
        return effective_cap(
            CapSources(
                found_watts=found_watts,
                min_watts=gpu.limits.min_cap_watts,
                max_watts=gpu.limits.max_cap_watts,
                user_watts=self._user_cap_watts(gpu),
                lease_watts=lease_cap_watts(self.lease, gpu.uuid),
                safe_watts=safe_cap_in_force_watts(self.lease, safe_cap_watts=safe_watts),
            )
        )

    def _clock(self, gpu: ManagedGpu) -> EffectiveClock:
        return effective_clock(
            ClockSources(
                min_mhz=gpu.limits.min_sm_clock_mhz,
                max_mhz=gpu.limits.max_sm_clock_mhz,
                user_mhz=self._user_clock_mhz(gpu),
                lease_mhz=lease_clock_mhz(self.lease, gpu.uuid),
            )
        )

    def _user_cap_watts(self, gpu: ManagedGpu) -> float | None:
        """The job's cap, brought inside the site's range: submission has refused what lies outside already."""
        job = holder_of(self._book.jobs, gpu.uuid)
        watts = job.user_cap_watts(gpu.uuid) if job else None
        low, high = self.user_range_watts(gpu)
        return None if watts is None else max(low, min(watts, high))

    def _user_clock_mhz(self, gpu: ManagedGpu) -> int | None:
        job = holder_of(self._book.jobs, gpu.uuid)
        mhz = job.user_clock_mhz(gpu.uuid) if job else None
        low, high = self.user_range_mhz(gpu)
        return None if mhz is None else max(low, min(mhz, high))
