"""What a serving instance takes in seconds and watts, by clock, batch, context and tensor-parallel degree. Pure.

An iteration that computes P prompt tokens beside B running sequences with C tokens of context lasts

    (prefill(P) + b B + d B^2 + c C) / speed(clock),    prefill(0) = a

where prefill is a line through measured points and speed the clock's curve. It draws, of all GPUs of the instance,

    watts(clock) x (share of the prompt x prefill watts + rest x logistic(log2 B)).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class ClockCurve:
    """Speed and watts as fractions of those at the highest clock; straight lines between the points."""

    clocks_mhz: tuple[int, ...]  # ascending
    speed_fractions: tuple[float, ...]
    watts_fractions: tuple[float, ...]

    @property
    def highest_mhz(self) -> int:
        return self.clocks_mhz[-1]

    def speed_fraction(self, clock_mhz: float) -> float:
        return line(clock_mhz, self.clocks_mhz, self.speed_fractions)

    def watts_fraction(self, clock_mhz: float) -> float:
        return line(clock_mhz, self.clocks_mhz, self.watts_fractions)


@dataclass(frozen=True)
class DecodeTime:
    """Seconds of one iteration without prompts, at the highest clock."""

    base_s: float
    per_sequence_s: float
    per_sequence_squared_s: float
    per_context_token_s: float

    def seconds(self, batch: int, context_tokens: float) -> float:
        return self.base_s + self.beside(batch, context_tokens)

    def beside(self, batch: float, context_tokens: float) -> float:
        """What the running sequences add to whatever else the iteration does."""
        square = self.per_sequence_squared_s * batch * batch
        return self.per_sequence_s * batch + square + self.per_context_token_s * context_tokens


@dataclass(frozen=True)
class DecodeDraw:
    """Watts of the instance at the highest clock, logistic in log2 of the batch."""

    floor_watts: float
    span_watts: float
    steepness: float
    middle_log2: float

    def watts(self, batch: float) -> float:
        exponent = self.steepness * (math.log2(max(1.0, batch)) - self.middle_log2)
        return self.floor_watts + self.span_watts / (1.0 + math.exp(-exponent))


@dataclass(frozen=True)
class ShardProfile:
    """An instance of one degree of tensor parallelism."""

    gpus: int
    clock: ClockCurve
    prefill_tokens: tuple[int, ...]  # of one iteration, ascending from 0
    prefill_s: tuple[float, ...]
    decode: DecodeTime
    decode_draw: DecodeDraw
    prefill_watts: float
    idle_watts: float  # loaded, nothing to do
    cache_tokens: int
    most_sequences: int  # the largest batch that was measured
    startup_s: float
    startup_joules: float

    @property
    def clocks_mhz(self) -> Sequence[int]:
        return self.clock.clocks_mhz

    @cached_property
    def _tail_s_per_token(self) -> float:
        span = self.prefill_tokens[-1] - self.prefill_tokens[-2]
        return (self.prefill_s[-1] - self.prefill_s[-2]) / span

    def prompt_s(self, tokens: float) -> float:
        """Of an iteration with so many prompt tokens and nothing else, at the highest clock."""
        beyond = tokens - self.prefill_tokens[-1]
        if beyond > 0:
            return self.prefill_s[-1] + beyond * self._tail_s_per_token
        return line(tokens, self.prefill_tokens, self.prefill_s)

    def iteration_s(self, *, batch: int, context_tokens: float, prompt_tokens: float, clock_mhz: float) -> float:
        unscaled_s = self.prompt_s(prompt_tokens) + self.decode.beside(batch, context_tokens)
        return unscaled_s / self.clock.speed_fraction(clock_mhz)

    def iteration_watts(self, *, batch: int, context_tokens: float, prompt_tokens: float, clock_mhz: float) -> float:
        """The mean over one iteration."""
        extra_s = self.prompt_s(prompt_tokens) - self.decode.base_s
        whole_s = extra_s + self.decode.seconds(batch, context_tokens)
        share = extra_s / whole_s if prompt_tokens else 0.0
        watts = share * self.prefill_watts + (1.0 - share) * self.decode_draw.watts(batch)
        return max(self.idle_watts, self.clock.watts_fraction(clock_mhz) * watts)

    def draw_watts(self, *, clock_mhz: int, batch: int) -> float:
        """The most that so many sequences draw: a prompt among them may be computed at any time."""
        return max(self.idle_watts, self.clock.watts_fraction(clock_mhz) * self.peak_watts(batch))

    def peak_watts(self, batch: int) -> float:
        return max(self.prefill_watts, self.decode_draw.watts(batch)) if batch else self.idle_watts

    def batch_within(self, watts: float, *, clock_mhz: int, most: int) -> int:
        """The largest batch whose decodes draw no more than `watts`; 0 if not even one does."""
        scale = self.clock.watts_fraction(clock_mhz)
        fitting = (batch for batch in range(most, 0, -1) if scale * self.decode_draw.watts(batch) <= watts)
        return next(fitting, 0)


@dataclass(frozen=True)
class ServingProfile:
    name: str
    shards: Mapping[int, ShardProfile]  # by GPUs of an instance
    off_watts: float  # of a GPU whose server is off
    host_watts: float  # of a server beside its GPUs, while it is on
    gpus_per_server: int
    boot_s: float  # of a server that was off
    origin: str  # who measured what, and what was composed of it
    formula: str
    fit_error_fraction: Mapping[str, float]  # mean absolute, by part

    def shard(self, gpus: int) -> ShardProfile:
        """Raise KeyError for a degree that the profile lacks."""
        return self.shards[gpus]


def line(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Straight between the points, level outside them."""
    if x <= xs[0]:
        return ys[0]
    if x >= xs[-1]:
        return ys[-1]
    right = bisect_right(xs, x)
    share = (x - xs[right - 1]) / (xs[right] - xs[right - 1])
    return ys[right - 1] + share * (ys[right] - ys[right - 1])
