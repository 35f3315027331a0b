"""A controller that answers with the lease it was given, or is away."""

from __future__ import annotations

from slurm_power.errors import SlurmPowerError
from slurm_power.gpu.wire import AgentReport, NodeLease


class FakeAgentLink:
    def __init__(self, lease: NodeLease | None = None) -> None:
        self.lease = lease
        self.failure: SlurmPowerError | None = None
        self.reports: list[AgentReport] = []

    def exchange(self, report: AgentReport) -> NodeLease | None:
        if self.failure is not None:
            raise self.failure
        self.reports.append(report)
        return self.lease
