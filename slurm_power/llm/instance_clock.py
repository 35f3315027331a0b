"""The instance manager's decision: the lowest clock at which no deadline is missed, and its chunk. Pure.

Down one step at a time, after some calm; up at once. The margin follows how far iterations were off from the profile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from slurm_power.llm.operating_point import LEAST_CHUNK_TOKENS, largest_chunk
from slurm_power.llm.profile import ShardProfile
from slurm_power.llm.request_class import DEFAULT_SLO, Size, Slo


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockConfig:
    epoch_s: float = 5.0
    calm_epochs: int = 3
    """So many in a row must allow a lower clock before it is lowered."""

    tbt_use_fraction: float = 0.95
    """Of the promised time between two tokens, that an iteration may take by the profile, margin included."""

    utilisation: float = 0.7
    """Of the time that prompts may take, from which on they queue too long."""

    seats_fraction: float = 0.8
    """Of the seats; a slower clock fills more of them."""

    least_margin: float = 1.0
    most_margin: float = 2.0
    judged_prompt_tokens: Mapping[Size, int] = field(
        default_factory=lambda: {Size.SMALL: 200, Size.MEDIUM: 700, Size.LARGE: 4500}
    )
    """Prompts of each size that must be answered in time although none waits now."""


class WaitingPrompt(NamedTuple):
    tokens: int  # not computed yet
    slack_s: float  # until its first token is due


@dataclass(frozen=True, slots=True)
class InstanceView:
    """What the manager sees of an instance."""

    batch: int
    context_tokens: int
    waiting: Sequence[WaitingPrompt]  # most urgent first
    prompt_tokens_per_s: float  # that arrived lately
    output_tokens_per_s: float
    sizes: frozenset[Size]  # of prompts that its pool serves


@dataclass(frozen=True, slots=True)
class Setting:
    clock_mhz: int
    chunk_tokens: int
    prompt_tokens_per_s: float  # that it computes so


class InstanceClock:
    """One instance's state between two epochs."""

    def __init__(self, shard: ShardProfile, config: ClockConfig, slo: Slo = DEFAULT_SLO) -> None:
        self.shard, self.config, self.slo = shard, config, slo
        self.margin = 1.0
        self._place = len(shard.clocks_mhz) - 1
        self._calm = 0

    @property
    def clock_mhz(self) -> int:
        return self.shard.clocks_mhz[self._place]

    def observe(self, *, foreseen_s: float, seen_s: float) -> None:
        """An iteration took `seen_s` where the profile said `foreseen_s`. Slower counts at once, faster slowly."""
        if foreseen_s <= 0.0 or seen_s <= 0.0:
            return
        ratio = seen_s / foreseen_s
        share = 0.3 if ratio > self.margin else 0.02
        moved = self.margin + share * (ratio - self.margin)
        self.margin = min(self.config.most_margin, max(self.config.least_margin, moved))

    def decide(self, view: InstanceView, *, most_clock_mhz: int | None = None) -> Setting:
        """Once an epoch. `most_clock_mhz`: what a watt budget or a user allows."""
        highest = self._highest(most_clock_mhz)
        here = self._try(view, min(self._place, highest))
        if here is None or self._place > highest:
            self._calm = 0
            return self._raise(view, highest)
        lower = self._try(view, self._place - 1) if self._place else None
        self._calm = self._calm + 1 if lower is not None else 0
        if lower is None or self._calm < self.config.calm_epochs:
            return here
        self._place -= 1
        return lower

    def raise_now(self, view: InstanceView, *, most_clock_mhz: int | None = None) -> Setting:
        """Slack has shrunk between two epochs: up at once, as far as the deadlines need."""
        self._calm = 0
        return self._raise(view, self._highest(most_clock_mhz))

    def _raise(self, view: InstanceView, highest: int) -> Setting:
        for place in range(min(self._place, highest), highest + 1):
            found = self._try(view, place)
            if found is not None:
                self._place = place
                return found
        self._place = highest
        return self._at_least(view, highest)

    def _highest(self, most_clock_mhz: int | None) -> int:
        if most_clock_mhz is None:
            return len(self.shard.clocks_mhz) - 1
        return max(0, sum(1 for one in self.shard.clocks_mhz if one <= most_clock_mhz) - 1)

    def _try(self, view: InstanceView, place: int) -> Setting | None:
        """None: at this clock a deadline would be missed."""
        config, shard = self.config, self.shard
        clock_mhz = shard.clocks_mhz[place]
        within_s = config.tbt_use_fraction * self.slo.tbt_s / self.margin
        batch = view.batch + 1
        chunk = largest_chunk(
            shard, batch=batch, context_tokens=view.context_tokens, clock_mhz=clock_mhz, within_s=within_s
        )
        if chunk < LEAST_CHUNK_TOKENS:
            return None
        rate = chunk / (within_s * self.margin)
        if view.prompt_tokens_per_s > config.utilisation * rate:
            return None
        decode_s = (
            self.margin * shard.decode.seconds(batch, view.context_tokens) / shard.clock.speed_fraction(clock_mhz)
        )
        busy = min(0.9, view.prompt_tokens_per_s / rate)
        settled = view.output_tokens_per_s * decode_s / (1.0 - busy)
        if settled > config.seats_fraction * shard.most_sequences and place < len(shard.clocks_mhz) - 1:
            return None
        iteration_s = within_s * self.margin
        if not self._new_prompts_in_time(view.sizes, chunk, iteration_s, busy):
            return None
        if not _waiting_in_time(view.waiting, chunk, iteration_s):
            return None
        return Setting(clock_mhz, chunk, rate)

    def _new_prompts_in_time(self, sizes: frozenset[Size], chunk: int, iteration_s: float, busy: float) -> bool:
        """Each waits for the running iteration, then takes its own; urgent ones pass the others."""
        for size in sizes:
            own = math.ceil(self.config.judged_prompt_tokens[size] / chunk)
            if (0.5 + own) * iteration_s > self.slo.ttft_s[size] * (1.0 - 0.3 * busy):
                return False
        return True

    def _at_least(self, view: InstanceView, place: int) -> Setting:
        """Whatever can be had at a clock at which not every deadline can be met."""
        shard, clock_mhz = self.shard, self.shard.clocks_mhz[place]
        within_s = self.config.tbt_use_fraction * self.slo.tbt_s / self.margin
        chunk = largest_chunk(
            shard, batch=view.batch + 1, context_tokens=view.context_tokens, clock_mhz=clock_mhz, within_s=within_s
        )
        chunk = max(LEAST_CHUNK_TOKENS, chunk)
        return Setting(clock_mhz, chunk, chunk / (within_s * self.margin))


def _waiting_in_time(waiting: Sequence[WaitingPrompt], chunk: int, iteration_s: float) -> bool:
    """Those that are late already count as the others: behind them the rest must still be in time."""
    before = 0
    for one in waiting:
        before += one.tokens
        if one.slack_s > 0.0 and (0.5 + math.ceil(before / chunk)) * iteration_s > one.slack_s:
            return False
    return True
