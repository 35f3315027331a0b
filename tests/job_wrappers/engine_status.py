"""A server's status with every number known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from job_wrappers.serving.engine.figures import Quantiles
from job_wrappers.serving.engine.views import ClassView, EngineStatus, ModelState, ModelView, Steered
from job_wrappers.serving.scheduling.scheduler import Limits

_SEEN = Quantiles(0.1, 0.2, 0.3, 10)
_CLASS = ClassView(running=2, waiting=1, least_slack_s=0.5, first_token=_SEEN, between_tokens=_SEEN, whole=_SEEN)
_STATUS = EngineStatus(
    public_name="chat",
    active="large",
    draining=False,
    models=(
        ModelView(name="large", state=ModelState.ACTIVE, running=2, waiting=1, blocks_total=100, blocks_held=7),
        ModelView(name="small", state=ModelState.ASLEEP),
    ),
    classes={"interactive": _CLASS, "batch": _CLASS},
    limits=Limits(max_num_seqs=8, max_batched_tokens=512, max_waiting=64),
    sm_clock_mhz=1200,
    tokens_per_s=40.0,
    joules_per_token=9.0,
    watts=360.0,
    prompt_tokens_total=1000,
    generated_tokens_total=400,
    preemptions_total=3,
    finished_total={"stop": 5},
    energy_joules_total=3600.0,
    last_steered=Steered(what="max_num_seqs 8", effect_s=0.01),
    switch_s=0.2,
    failure="a rank is gone",
)


def engine_status(**changes: Any) -> EngineStatus:
    return replace(_STATUS, **changes)
