"""What the managers know of the load: each class's arrivals so far, the forecast, or, for the oracle, the future."""

from __future__ import annotations

import numpy as np

from slurm_power.llm.arrivals import ArrivalConfig, ArrivalForecast
from slurm_power.llm.operating_point import Load
from slurm_power.llm.request_class import (
    MEDIUM_OUTPUT_TOKENS,
    MEDIUM_PROMPT_TOKENS,
    REQUEST_CLASSES,
    SMALL_OUTPUT_TOKENS,
    SMALL_PROMPT_TOKENS,
    RequestClass,
)
from slurm_power.replay.serving.trace import Counts, Requests

_FORESEEN_TOKENS = np.array([60, 220, 500])


def prompt_sizes(requests: Requests) -> Counts:
    sizes: Counts = np.digitize(requests.prompt_tokens, [SMALL_PROMPT_TOKENS, MEDIUM_PROMPT_TOKENS])
    return sizes


def output_sizes(requests: Requests) -> Counts:
    sizes: Counts = np.digitize(requests.output_tokens, [SMALL_OUTPUT_TOKENS, MEDIUM_OUTPUT_TOKENS])
    return sizes


def foreseen_outputs(requests: Requests, *, right_fraction: float, seed: int) -> tuple[Counts, Counts]:
    """Sizes and tokens of the answers as a predictor would say that is right in this share of cases."""
    rng = np.random.default_rng([seed, 77])
    true = output_sizes(requests)
    wrong = (true + rng.integers(1, 3, requests.count)) % 3
    sizes = np.where(rng.random(requests.count) < right_fraction, true, wrong)
    if right_fraction >= 1.0:
        return sizes, requests.output_tokens
    return sizes, _FORESEEN_TOKENS[sizes]


class SlotLoads:
    """Loads of past or future slots, by class as it was foreseen on arrival; a past answer counts as foreseen, because
    it may still be running."""

    def __init__(self, requests: Requests, classes: Counts, outputs: Counts, slot_s: float) -> None:
        slots = (requests.arrival_s / slot_s).astype(np.int64)
        self.slots = int(np.ceil(requests.span_s / slot_s))
        place = slots * len(REQUEST_CLASSES) + classes
        size = (self.slots + 1) * len(REQUEST_CLASSES)
        self._sums = [
            np.bincount(place, weights=weights, minlength=size).reshape(-1, len(REQUEST_CLASSES)) / slot_s
            for weights in (None, requests.prompt_tokens.astype(float), outputs.astype(float))
        ]

    def at(self, slot: int) -> dict[RequestClass, Load]:
        if slot >= len(self._sums[0]):
            return {}
        rows = zip(*(one[slot].tolist() for one in self._sums), strict=True)
        return {one: Load(*row) for one, row in zip(REQUEST_CLASSES, rows, strict=True)}

    def tokens_per_s(self, slot: int) -> float:
        return sum(load.prompt_tokens_per_s + load.output_tokens_per_s for load in self.at(slot).values())


def template_of(requests: Requests, config: ArrivalConfig) -> dict[int, float]:
    """Tokens per second by slot of the week of a trace that lies in the past."""
    tokens = (requests.prompt_tokens + requests.output_tokens).astype(float)
    sums = np.bincount((requests.arrival_s / config.slot_s).astype(np.int64), weights=tokens) / config.slot_s
    return {slot: float(one) for slot, one in enumerate(sums[: config.slots_per_week])}


class Forecaster:
    """Asked for the load of the next slots; learns each slot when it has ended."""

    def __init__(self, loads: SlotLoads, config: ArrivalConfig, template: dict[int, float]) -> None:
        self._loads = loads
        self._forecast = ArrivalForecast(config, template=template)

    def load(self, slot: int, slots: int) -> dict[RequestClass, Load]:
        """At the beginning of `slot`: all before it is known."""
        if slot:
            self._forecast.learn(slot - 1, self._loads.at(slot - 1))
        return self._forecast.foresee(slot, slots)


class Oracle:
    """The true loads of the next slots: the highest piece of a third of a slot."""

    PIECES = 3

    def __init__(self, pieces: SlotLoads) -> None:
        """`pieces`: loads of thirds of slots."""
        self._pieces = pieces

    def load(self, slot: int, slots: int) -> dict[RequestClass, Load]:
        first = slot * self.PIECES
        last = max(first + 1, min(first + slots * self.PIECES, self._pieces.slots))
        return self._pieces.at(max(range(first, last), key=self._pieces.tokens_per_s))
