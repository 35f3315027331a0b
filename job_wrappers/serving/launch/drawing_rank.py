"""A rank on this process's device; on a CPU with an emulated GPU, one whose iterations draw that GPU's power."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from job_wrappers.serving.ranks.model_runner import ModelRunner
from job_wrappers.serving.ranks.rank import Rank
from job_wrappers.serving.ranks.seat import Seat
from job_wrappers.serving.ranks.settings import RankSettings
from job_wrappers.serving.steps.step_input import StepInput
from job_wrappers.training.devices import is_emulated
from slurm_power.testing.emulated_serving_load import EmulatedServingLoad
from slurm_power.testing.nvml_emulator.emulator import EmulatedNode


def make_rank(
    settings: RankSettings,
    seat: Seat,
    device: torch.device,
    group: Any,
    *,
    gpu: str | None,
    set_clock: Callable[[int | None], None] | None,
) -> Rank:
    if gpu is None or not is_emulated(os.environ):
        return Rank(settings, seat, device, tp_group=group, set_clock=set_clock)
    rank = _DrawingRank(settings, seat, device, tp_group=group, set_clock=set_clock)
    rank.load = EmulatedServingLoad(EmulatedNode.open_from_environment(), gpu)
    return rank


class _DrawingRank(Rank):
    load: EmulatedServingLoad

    def run_model(self, runner: ModelRunner, step: StepInput) -> Tensor | None:
        with self.load.iteration(len(step.token_ids)):
            return super().run_model(runner, step)
