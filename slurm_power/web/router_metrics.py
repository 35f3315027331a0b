"""/metrics of the router in Prometheus' text format. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from slurm_power.daemons.router_desk import Desk
from slurm_power.daemons.router_figures import quantile


def render(desk: Desk) -> str:
    return "\n".join(_lines(desk)) + "\n"


def _lines(desk: Desk) -> Iterator[str]:
    figures = desk.figures
    yield from _metric("waiting", "gauge", "Requests that wait for a place.", [("", desk.waiting)])
    for name, about, value in (
        ("refused_total", "Requests refused because none could begin in time.", figures.refused),
        ("retried_total", "Requests sent to a second instance.", figures.retried),
        ("broken_total", "Answers that an instance broke off.", figures.broken),
        ("spilled_total", "Requests that another pool than their own answered.", figures.spilled),
    ):
        yield from _metric(name, "counter", about, [("", value)])
    classes = [(f'{{class="{one.name}"}}', of) for one, of in figures.of.items() if of.arrived]
    for name, about in (
        ("arrived", "Requests by class."),
        ("finished", "Answers that came to their end."),
        ("output_tokens", "Tokens of those answers."),
        ("in_time", "First tokens that met their deadline."),
    ):
        yield from _metric(f"{name}_total", "counter", about, [(label, getattr(of, name)) for label, of in classes])
    p99 = [(label, quantile(of.first_token_s, 0.99)) for label, of in classes]
    yield from _metric("first_token_p99_seconds", "gauge", "Of the last answers.", p99)
    instances = [(f'{{instance="{one.name}"}}', one) for one in desk.roster]
    requests = [(label, one.requests) for label, one in instances]
    yield from _metric("instance_requests", "gauge", "Requests at an instance.", requests)
    accepts = [(label, int(one.accepts)) for label, one in instances]
    yield from _metric("instance_accepts", "gauge", "Whether it takes requests.", accepts)


def _metric(name: str, kind: str, about: str, samples: Sequence[tuple[str, float | None]]) -> Iterator[str]:
    known = [(label, value) for label, value in samples if value is not None]
    if known:
        yield f"# HELP slurm_power_router_{name} {about}"
        yield f"# TYPE slurm_power_router_{name} {kind}"
        yield from (f"slurm_power_router_{name}{label} {value:.10g}" for label, value in known)
