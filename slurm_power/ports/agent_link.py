"""The agent's line to the controller: it reports, and gets the leases that hold from now on."""

from __future__ import annotations

from typing import Protocol

from slurm_power.gpu.wire import AgentReport, NodeLease


class AgentLink(Protocol):
    def exchange(self, report: AgentReport) -> NodeLease | None:
        """Send one report, receive this node's lease (None: the controller has none for it yet).
        Raise Unavailable when the controller cannot be reached, NotPermitted when trust fails."""
        ...
