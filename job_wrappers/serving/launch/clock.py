"""The GPU clock through the node's agent, which alone may set it."""

from __future__ import annotations

from collections.abc import Callable

from job_wrappers.agent_client import AgentClient, job_id_of
from job_wrappers.serving.errors import ServingError
from slurm_power.errors import SlurmPowerError


def clock_through_agent(client: AgentClient, gpu: str) -> Callable[[int | None], None]:
    """A setter in MHz, None to give the clock back; it raises ServingError outside a job, or when the agent
    refuses or is away."""

    def set_clock(mhz: int | None) -> None:
        try:
            client.lower_clock(job_id_of(), gpu, mhz)
        except SlurmPowerError as cause:
            raise ServingError(f"the clock stays as it is: {cause}") from cause

    return set_clock
