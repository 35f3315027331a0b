"""The cluster's draw as an exact integral over time: jobs on one account, what nobody uses on another."""

from __future__ import annotations

from slurm_power.replay.settings import ReplayConfig


class Meter:
    def __init__(self, config: ReplayConfig) -> None:
        self._config = config
        self.empty_watts = config.gpus * config.gpu_idle_watts + len(config.node_gpus) * config.node_base_watts
        self.jobs_watts = 0.0
        self.idle_watts = self.empty_watts
        self.job_joules = 0.0
        self.idle_joules = 0.0
        self.highest_watts = 0.0
        """At any moment."""
        self.slot_watts: list[float] = []
        """Mean of each past slot."""
        self._joules_before_slot = 0.0

    @property
    def it_watts(self) -> float:
        return self.jobs_watts + self.idle_watts

    @property
    def joules(self) -> float:
        return self.job_joules + self.idle_joules

    def run(self, elapsed_s: float) -> None:
        if elapsed_s > 0:
            self.job_joules += self.jobs_watts * elapsed_s
            self.idle_joules += self.idle_watts * elapsed_s
            self.highest_watts = max(self.highest_watts, self.it_watts)

    def occupy(self, job_watts: float, idle_watts: float) -> None:
        """A job draws from now on; what would idle without it does not any more."""
        self.jobs_watts += job_watts
        self.idle_watts -= idle_watts

    def vacate(self, job_watts: float, idle_watts: float) -> None:
        self.occupy(-job_watts, -idle_watts)

    def change(self, jobs_watts: float) -> None:
        """By so much more (or less, below 0) jobs draw."""
        self.jobs_watts += jobs_watts

    def settle(self, *, jobs_watts: float, occupied_idle_watts: float) -> None:
        """Sums anew: thousands of small changes leave a rounding error."""
        self.jobs_watts = jobs_watts
        self.idle_watts = self.empty_watts - occupied_idle_watts

    def end_slot(self) -> None:
        self.slot_watts.append((self.joules - self._joules_before_slot) / self._config.slot_s)
        self._joules_before_slot = self.joules
