"""One rank: its share of every model, and what it does when told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from job_wrappers.serving.errors import ServingError
from job_wrappers.serving.kernels.allocator import keep_freed_memory
from job_wrappers.serving.ranks.commands import (
    Allocate,
    Command,
    Free,
    Load,
    Loaded,
    Profile,
    SetClock,
    Sleep,
    Step,
    Stop,
    Wake,
)
from job_wrappers.serving.ranks.groups import receive, send
from job_wrappers.serving.ranks.memory import free_bytes, free_host_bytes
from job_wrappers.serving.ranks.model_runner import ModelRunner
from job_wrappers.serving.ranks.profile import profile
from job_wrappers.serving.ranks.seat import Seat
from job_wrappers.serving.ranks.settings import RankSettings
from job_wrappers.serving.steps.step_input import StepInput

log = logging.getLogger(__name__)

_CPU_SHARE, _GPU_SHARE = 0.5, 0.9

FAILURES = (ServingError, RuntimeError, OSError, ValueError)
"""What doing as told may end in: ours, torch's (out of memory, a lost peer), the disk's, a file that is no model."""


class Rank:
    def __init__(
        self,
        settings: RankSettings,
        seat: Seat,
        device: torch.device,
        *,
        tp_group: Any = None,
        set_clock: Callable[[int | None], None] | None = None,
    ) -> None:
        self.seat = seat
        self.device = device
        self._settings = settings
        self._tp_group = tp_group
        self._set_clock = set_clock
        self._runners: dict[str, ModelRunner] = {}
        self._budget_bytes = _budget_bytes(settings, device)  # before anything is loaded
        if device.type == "cpu":
            keep_freed_memory()

    def do(self, command: Command) -> object:
        """What the command's answer carries. May run on a thread beside `run` unless it is Profile."""
        match command:
            case Load(model):
                return self._load(model)
            case Profile():
                return profile(self, self._runners[command.model], command)
            case Allocate():
                runner = self._runners[command.model]
                return runner.allocate(device_blocks=command.device_blocks, host_blocks=command.host_blocks)
            case Sleep(model):
                self._runners[model].sleep()
            case Wake(model):
                self._runners[model].wake()
            case Free(model):
                runner = self._runners.pop(model)
                runner.free()
            case SetClock(mhz):
                self._lower_clock(mhz)
            case Step() | Stop():
                raise AssertionError("not answered")
        return None

    def run(self, model: str, step: StepInput) -> Tensor | None:
        """On rank 0 the logits [S, vocabulary]; on others nothing of use."""
        return self.run_model(self._runners[model], step)

    def run_model(self, runner: ModelRunner, step: StepInput) -> Tensor | None:
        seat = self.seat
        runner.move(step.moves)
        if len(step.token_ids) == 0:
            return None
        hidden = None
        if not seat.is_first_stage:
            shape = (len(step.token_ids), runner.hidden_size)
            hidden = receive(shape, runner.dtype, self.device, seat.previous)
        result = runner.forward(step, hidden)
        if seat.pipeline == 1 or (len(step.logit_rows) == 0 and seat.is_last_stage):
            return result
        if not seat.is_last_stage:
            send(result, seat.next)
            if seat.rank == 0 and len(step.logit_rows):
                shape = (len(step.logit_rows), runner.vocab_size)
                return receive(shape, torch.float32, self.device, seat.logits_rank)
        elif seat.rank == seat.logits_rank:
            send(result, 0)
        return None

    def _load(self, model: str) -> Loaded:
        settings = self._settings
        runner = ModelRunner.load(
            settings.paths[model],
            seat=self.seat,
            tp_group=self._tp_group,
            device=self.device,
            dtype=settings.dtype,
            attention=settings.attention,
            block_tokens=settings.block_tokens,
            budget_bytes=self._budget_bytes,
        )
        self._runners[model] = runner
        return Loaded(
            weight_bytes=runner.weight_bytes,
            block_bytes=runner.layout.block_bytes,
            budget_bytes=self._budget_bytes,
            host_bytes=free_host_bytes(),
        )

    def _lower_clock(self, mhz: int | None) -> None:
        if self._set_clock is None:
            raise ServingError("no GPU clock can be set here")
        self._set_clock(mhz)


def _budget_bytes(settings: RankSettings, device: torch.device) -> int:
    if settings.memory_bytes is not None:
        return settings.memory_bytes
    share = settings.memory_fraction or (_GPU_SHARE if device.type == "cuda" else _CPU_SHARE)
    return int(free_bytes(device) * share)
