"""One iteration's arrays as tensors on the device, with what attention prepared for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from job_wrappers.serving.attention.interface import PagedAttention
from job_wrappers.serving.steps.step_input import Ints, StepInput


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStep:
    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    logit_rows: Tensor | None
    """None: all of them, in their order."""

    plan: Any

    @classmethod
    def of(cls, step: StepInput, attention: PagedAttention, device: torch.device) -> DeviceStep:
        all_rows = len(step.logit_rows) == len(step.token_ids)
        return cls(
            token_ids=_on(device, step.token_ids),
            positions=_on(device, step.positions),
            slots=_on(device, step.slots),
            logit_rows=None if all_rows else _on(device, step.logit_rows),
            plan=attention.plan(step),
        )


def _on(device: torch.device, numbers: Ints) -> Tensor:
    return torch.from_numpy(numbers).to(device, non_blocking=True)
