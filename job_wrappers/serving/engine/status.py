"""The status of a host, from its parts as they are now. Reads numbers that another thread writes: each is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from job_wrappers.serving.engine.model_engine import ModelEngine
from job_wrappers.serving.engine.views import ClassView, EngineStatus, ModelState, ModelView
from job_wrappers.serving.kv.sizing import waste_fraction
from job_wrappers.serving.requests.request import Priority, Request

if TYPE_CHECKING:
    from job_wrappers.serving.engine.host import EngineHost


def status_of(host: EngineHost) -> EngineStatus:
    engines = list(host.engines.values())
    joules = host.shares.read_total_joules()
    tokens_per_s, joules_per_token, watts = host.figures.rates.now(joules)
    return EngineStatus(
        public_name=host.public_name,
        active=host.active_name,
        draining=host.draining,
        models=tuple(_model(name, state, host.engines.get(name)) for name, state in host.states.items()),
        classes={priority.name.lower(): _class(host, engines, priority) for priority in Priority},
        limits=host.limits,
        sm_clock_mhz=host.sm_clock_mhz,
        tokens_per_s=tokens_per_s,
        joules_per_token=joules_per_token,
        watts=watts,
        prompt_tokens_total=host.figures.prompt_tokens,
        generated_tokens_total=host.figures.generated_tokens,
        preemptions_total=sum(sum(engine.scheduler.preemptions.values()) for engine in engines),
        finished_total=dict(host.figures.finished),
        energy_joules_total=joules,
        last_steered=host.steered,
        switch_s=host.switch_s,
        failure=host.failure,
    )


def _model(name: str, state: ModelState, engine: ModelEngine | None) -> ModelView:
    if engine is None:
        return ModelView(name=name, state=state)
    scheduler = engine.scheduler
    pool, used = scheduler.pool, scheduler.used_tokens()
    return ModelView(
        name=name,
        state=state,
        running=len(scheduler.running),
        waiting=len(scheduler.waiting) + len(scheduler.swapped),
        blocks_total=pool.blocks,
        blocks_held=pool.held,
        blocks_idle=pool.idle,
        used_tokens=used,
        waste_fraction=max(0.0, waste_fraction(used, pool.held, scheduler.block_tokens)),
    )


def _class(host: EngineHost, engines: list[ModelEngine], priority: Priority) -> ClassView:
    waiting = sum(engine.scheduler.waiting_by_class()[priority] for engine in engines)
    running = sum(s.request.priority is priority for engine in engines for s in list(engine.scheduler.running))
    slacks = [
        slack
        for engine in engines
        for request, last_token_at_s in engine.live_requests()
        if request.priority is priority and (slack := _slack_s(host, request, last_token_at_s)) is not None
    ]
    figures = host.figures
    return ClassView(
        running=running,
        waiting=waiting,
        least_slack_s=min(slacks, default=None),
        first_token=figures.first_token[priority].quantiles(),
        between_tokens=figures.between_tokens[priority].quantiles(),
        whole=figures.whole[priority].quantiles(),
    )


def _slack_s(host: EngineHost, request: Request, last_token_at_s: float | None) -> float | None:
    """Time left to the request's deadline, and to its next token by the service level: the nearer one."""
    config, due = host.config, []
    if request.deadline_s is not None:
        due.append(request.deadline_s)
    if last_token_at_s is None and config.slo_ttft_s is not None:
        due.append(request.arrived_at_s + config.slo_ttft_s)
    if last_token_at_s is not None and config.slo_tbt_s is not None:
        due.append(last_token_at_s + config.slo_tbt_s)
    return min(due) - host.ports.now_s() if due else None
