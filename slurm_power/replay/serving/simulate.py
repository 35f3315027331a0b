"""A trace through instances and managers: arrivals, ends of iterations and the managers' epochs, in order of time."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush

import numpy as np

from slurm_power.errors import ConfigError
from slurm_power.replay.serving.books import Books, Meter
from slurm_power.replay.serving.engine import STANDING_ROOM, Engine
from slurm_power.replay.serving.foresight import foreseen_outputs, prompt_sizes
from slurm_power.replay.serving.managers import Managers
from slurm_power.replay.serving.policies import SimulationConfig
from slurm_power.replay.serving.result import Outcome
from slurm_power.replay.serving.trace import Requests

Tell = Callable[[float], None]


def simulate(requests: Requests, config: SimulationConfig, *, tell: Tell | None = None) -> Outcome:
    """Runs until the last request has its answer. `tell` hears the share that has arrived."""
    _must_fit(requests, config)
    books = Books(requests, tbt_s=config.slo.tbt_s)
    meter = Meter(requests.span_s)
    right = 1.0 if config.policy.knows_future else config.predictor_right_fraction
    sizes, outputs = foreseen_outputs(requests, right_fraction=right, seed=config.seed)
    prompts = prompt_sizes(requests)
    limits_s = np.array([config.slo.ttft_s[size] for size in sorted(config.slo.ttft_s)])[prompts]
    books.foreseen_tokens = (requests.prompt_tokens + outputs).tolist()
    managers = Managers(requests, prompts * 3 + sizes, outputs, config, books=books, meter=meter)
    _run(requests, (requests.arrival_s + limits_s).tolist(), managers, books, config.clock.epoch_s, tell)
    return Outcome.of(requests, books, meter, managers.close(), slo=config.slo, prompts=prompts)


def _must_fit(requests: Requests, config: SimulationConfig) -> None:
    longest = int((requests.prompt_tokens + requests.output_tokens).max(initial=0))
    least = min(shard.cache_tokens for shard in config.real.shards.values())
    if longest > STANDING_ROOM * least:
        raise ConfigError(f"a request of {longest} tokens does not fit into the profile's smallest cache of {least}")


def _run(
    requests: Requests, due_s: list[float], managers: Managers, books: Books, epoch_s: float, tell: Tell | None
) -> None:
    arrivals, count = requests.arrival_s.tolist(), requests.count
    events: list[tuple[float, int]] = []  # heap of (end of what an instance does, its number)
    engines, route = managers.engines, managers.route
    place, epoch, tick_s = 0, 0, 0.0
    never = math.inf

    def watch(engine: Engine) -> None:
        if engine.end_s != never:
            heappush(events, (engine.end_s, engine.number))

    managers.tell(watch)
    while True:
        arrival_s = arrivals[place] if place < count else never
        while events and ((engine := engines.get(events[0][1])) is None or engine.end_s != events[0][0]):
            heappop(events)
        event_s = events[0][0] if events else never
        if arrival_s == never and books.finished + books.lost >= count:
            return
        if tick_s <= arrival_s and tick_s <= event_s:
            managers.tick(tick_s)
            epoch += 1
            tick_s = epoch * epoch_s
            if tell is not None and epoch % 120 == 0:
                tell(place / count)
            if len(events) > 64 and len(events) > 8 * len(engines):
                events[:] = list(set(events))
                heapify(events)
        elif arrival_s <= event_s:
            route(place, arrival_s, due_s[place])
            place += 1
        else:
            _, number = heappop(events)
            engine = engines[number]
            engine.step()
            if engine.end_s != never:
                heappush(events, (engine.end_s, number))
