"""Where an instance settles under a steady load, and how much load it can take. Pure; means, not distributions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from slurm_power.llm.profile import ShardProfile

_ROUNDS = 12
LEAST_CHUNK_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Load:
    """Arrivals of a class, a pool or one instance."""

    requests_per_s: float = 0.0
    prompt_tokens_per_s: float = 0.0
    output_tokens_per_s: float = 0.0

    def plus(self, other: Load) -> Load:
        return Load(
            self.requests_per_s + other.requests_per_s,
            self.prompt_tokens_per_s + other.prompt_tokens_per_s,
            self.output_tokens_per_s + other.output_tokens_per_s,
        )

    def times(self, factor: float) -> Load:
        return Load(self.requests_per_s * factor, self.prompt_tokens_per_s * factor, self.output_tokens_per_s * factor)

    @property
    def context_tokens(self) -> float:
        """Of one running request, on average over its answer."""
        if not self.requests_per_s:
            return 0.0
        return (self.prompt_tokens_per_s + 0.5 * self.output_tokens_per_s) / self.requests_per_s


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    batch: float
    iteration_s: float
    prompt_share: float  # of the time, that prompts add
    watts: float


def largest_chunk(
    shard: ShardProfile, *, batch: float, context_tokens: float, clock_mhz: float, within_s: float, most: int = 4096
) -> int:
    """Prompt tokens that fit beside what runs into an iteration of `within_s`; 0: not even the running ones do."""
    room_s = within_s * shard.clock.speed_fraction(clock_mhz) - shard.decode.beside(batch, context_tokens)
    if room_s <= shard.prefill_s[0]:
        return 0
    tokens, seconds = shard.prefill_tokens, shard.prefill_s
    for right in range(1, len(tokens)):
        if seconds[right] > room_s:
            share = (room_s - seconds[right - 1]) / (seconds[right] - seconds[right - 1])
            return min(most, int(tokens[right - 1] + share * (tokens[right] - tokens[right - 1])))
    return min(most, tokens[-1])


def full_chunk(shard: ShardProfile, *, within_s: float) -> int:
    """A chunk for an instance whose clock and chunk are not steered: it holds with every seat taken."""
    batch = shard.most_sequences
    context = 0.8 * shard.cache_tokens if shard.cache_tokens < 100_000 else batch * 1500.0
    chunk = largest_chunk(
        shard, batch=batch, context_tokens=context, clock_mhz=shard.clock.highest_mhz, within_s=within_s
    )
    return max(LEAST_CHUNK_TOKENS, chunk)


def settle(shard: ShardProfile, load: Load, *, clock_mhz: float, chunk_tokens: int) -> OperatingPoint | None:
    """None: it cannot keep up, prompts or answers pile up."""
    if load.requests_per_s <= 0.0:
        return OperatingPoint(0.0, shard.decode.base_s, 0.0, shard.idle_watts)
    speed = shard.clock.speed_fraction(clock_mhz)
    prompt = load.prompt_tokens_per_s / load.requests_per_s
    pieces = math.ceil(prompt / chunk_tokens)
    extra_s = pieces * (shard.prompt_s(prompt / pieces) - shard.prefill_s[0]) / speed
    full_s = (shard.prompt_s(chunk_tokens) - shard.prefill_s[0]) * prompt / chunk_tokens / speed
    share = load.requests_per_s * min(extra_s, full_s)  # prompts that wait together share iterations
    if share >= 0.95:
        return None
    iteration_s = shard.decode.base_s / speed
    batch = 0.0
    for _ in range(_ROUNDS):
        batch = load.output_tokens_per_s * iteration_s
        if batch > 4 * shard.most_sequences:
            return None
        beside_s = shard.decode.beside(batch, batch * load.context_tokens)
        iteration_s = (shard.decode.base_s + beside_s) / speed / (1.0 - share)
    idle = math.exp(-batch)
    busy = share * shard.prefill_watts + (1.0 - share) * shard.decode_draw.watts(batch)
    busy = max(shard.idle_watts, busy * shard.clock.watts_fraction(clock_mhz))
    return OperatingPoint(batch, iteration_s, share, idle * shard.idle_watts + (1.0 - idle) * busy)


@lru_cache(maxsize=4096)
def _capacity(shard: ShardProfile, prompt: float, output: float, within_s: float, utilisation: float) -> float:
    low, high = 0.0, 1000.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        fits = _fits(shard, Load(middle, middle * prompt, middle * output), within_s, utilisation)
        low, high = (middle, high) if fits else (low, middle)
    return low


def capacity_per_s(shard: ShardProfile, load: Load, *, within_s: float, utilisation: float) -> float:
    """Requests of this mix that one instance takes at its highest clock, each iteration within `within_s`, using at
    most `utilisation` of its prompts' time, its seats and its cache."""
    if load.requests_per_s <= 0.0:
        return math.inf
    prompt = _rounded(load.prompt_tokens_per_s / load.requests_per_s)
    output = _rounded(load.output_tokens_per_s / load.requests_per_s)
    return _capacity(shard, prompt, output, within_s, round(utilisation, 3))


def _fits(shard: ShardProfile, load: Load, within_s: float, utilisation: float) -> bool:
    highest = shard.clock.highest_mhz
    batch = 1.0
    chunk = 0
    for _ in range(3):
        context = batch * load.context_tokens
        chunk = largest_chunk(shard, batch=batch, context_tokens=context, clock_mhz=highest, within_s=within_s)
        if chunk < LEAST_CHUNK_TOKENS:
            return False
        found = settle(shard, load, clock_mhz=highest, chunk_tokens=chunk)
        if found is None:
            return False
        batch = found.batch
    prompts = load.prompt_tokens_per_s * within_s / chunk
    cache = batch * load.context_tokens / shard.cache_tokens
    return max(prompts, batch / shard.most_sequences, cache) <= utilisation


def _rounded(tokens: float) -> float:
    """To about 2 %: the same mix asks the cache, not the search."""
    return float(round(math.exp(round(math.log(max(1.0, tokens)) * 50) / 50), 1))
