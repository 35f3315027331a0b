"""Attention in C where the blocks lie, without gathering them; what that C does not suit goes to the reference."""

from __future__ import annotations

from torch import Tensor

from job_wrappers.serving.attention.reference import Plan as ReferencePlan
from job_wrappers.serving.attention.reference import ReferenceAttention
from job_wrappers.serving.kernels.paged_cpu import DTYPES, PagedStep
from job_wrappers.serving.kv.store import PagedLayer
from job_wrappers.serving.steps.step_input import StepInput


class CpuPlan:
    def __init__(self, step: StepInput) -> None:
        self.native = PagedStep(step)
        self.reference = ReferencePlan(step)


class CpuAttention:
    def __init__(self) -> None:
        self._reference = ReferenceAttention()

    def plan(self, step: StepInput) -> CpuPlan:
        return CpuPlan(step)

    def attend(self, queries: Tensor, cache: PagedLayer, plan: CpuPlan, *, scale: float) -> Tensor:
        if cache.native is None or queries.dtype not in DTYPES:
            return self._reference.attend(queries, cache, plan.reference, scale=scale)
        return plan.native.attend(queries, cache.native, scale=scale)
