"""One serving instance, steered: batch size, clock, model."""

from __future__ import annotations

from typing import Protocol

from slurm_power.llm.instance_status import InstanceStatus


class ServingInstance(Protocol):
    """Every method raises Unavailable when it does not answer, DeviceRefused when it says no, NotPermitted for a wrong
    token."""

    async def status(self) -> InstanceStatus: ...

    async def set_clock_mhz(self, mhz: int | None) -> None:
        """Never above what the site allows: the node's agent only lets a job lower it. None: gives it back."""
        ...

    async def set_limits(self, *, max_num_seqs: int | None = None, max_batched_tokens: int | None = None) -> None:
        """Sequences that run at the same time, tokens of one iteration. No request is dropped."""
        ...

    async def switch_model(self, name: str) -> None: ...

    async def drain(self) -> None:
        """New requests are refused; running ones end."""
        ...

    async def close(self) -> None: ...
