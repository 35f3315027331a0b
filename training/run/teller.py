"""Makes records and events of what happens and passes them to the listeners; on other ranks than 0 to nobody."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from training.planning.model_layers import flops_per_token
from training.run.config import RunConfig
from training.run.listener import Fanout, RunEvent, RunFacts, RunResult, StepListener, StepRecord

log = logging.getLogger(__name__)

AXES = ("tensor", "pipe", "data", "expert", "expert_data")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """One step as all ranks together saw it."""

    step: int
    loss: float
    held_out_loss: float | None
    learning_rate: float
    gradient_norm: float
    step_s: float
    pause_s: float
    busy_fraction_by_stage: tuple[float, ...]
    bytes_by_axis: Mapping[str, float]
    micro_sequences: int
    sequences_consumed: int


class Teller:
    def __init__(self, config: RunConfig, listeners: list[StepListener]) -> None:
        self._config, self._listeners = config, Fanout(listeners)
        self._facts: RunFacts | None = None

    def began(self, model: Any, plan: Any, *, world_size: int, resumed_from_step: int | None) -> None:
        config, peak = self._config, self._config.run.peak_flops_per_s
        self._facts = RunFacts(
            run_folder=str(config.run.folder),
            model_family=model.family,
            parameters=model.parameter_count(),
            policy=config.precision.policy,
            plan=asdict(plan),
            world_size=world_size,
            steps=config.optimizer.steps,
            global_sequences=config.batch.global_sequences,
            sequence_length_tokens=config.data.sequence_length,
            flops_per_token=flops_per_token(model, config.data.sequence_length),
            peak_flops_per_s=None if peak is None else peak * world_size,
            resumed_from_step=resumed_from_step,
            began_at_unix_s=time.time(),
        )
        self._listeners.on_run_begin(self._facts)

    def stepped(self, facts: StepFacts) -> None:
        tokens = self._config.tokens_per_step
        record = StepRecord(
            step=facts.step,
            loss=facts.loss,
            held_out_loss=facts.held_out_loss,
            learning_rate=facts.learning_rate,
            gradient_norm=facts.gradient_norm,
            tokens=tokens,
            step_s=facts.step_s,
            pause_s=facts.pause_s,
            tokens_per_s=tokens / (facts.step_s + facts.pause_s),
            busy_fraction_by_stage=facts.busy_fraction_by_stage,
            bytes_by_axis=dict(facts.bytes_by_axis),
            micro_sequences=facts.micro_sequences,
            model_flops_utilisation=self._utilisation(tokens / facts.step_s),
            sequences_consumed=facts.sequences_consumed,
            ended_at_unix_s=time.time(),
        )
        self._listeners.on_step(record)

    def event(self, kind: str, text: str, step: int, **facts: Any) -> None:
        event = RunEvent(kind=kind, text=text, step=step, at_unix_s=time.time(), facts=facts)
        self._listeners.on_event(event)

    def ended(self, result: RunResult) -> None:
        self._listeners.on_run_end(result)

    def _utilisation(self, tokens_per_s: float) -> float | None:
        facts = self._facts
        if facts is None or facts.peak_flops_per_s is None or facts.flops_per_token is None:
            return None
        return facts.flops_per_token * tokens_per_s / facts.peak_flops_per_s
