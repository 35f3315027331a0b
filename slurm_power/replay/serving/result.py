"""What a replayed trace came to: joules, deadlines kept, hours, money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from slurm_power.llm.request_class import REQUEST_CLASSES, Size, Slo
from slurm_power.replay.serving.books import Books, Meter
from slurm_power.replay.serving.foresight import output_sizes
from slurm_power.replay.serving.policies import Prices
from slurm_power.replay.serving.trace import Counts, Numbers, Requests
from slurm_power.units import kwh_from_joules

if TYPE_CHECKING:
    from slurm_power.replay.serving.member import Totals

QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class ClassOutcome:
    requests: int
    attainment_fraction: float
    ttft_s: tuple[float, ...]  # at QUANTILES
    tbt_s: tuple[float, ...]  # of each request's mean


@dataclass(frozen=True)
class Outcome:
    energy_joules: float  # of all GPUs of servers that are on, and of their start-ups
    host_joules: float  # of the servers beside their GPUs; not in energy_joules
    gpu_hours: float  # held by instances
    server_hours: float  # of servers that are on
    attainment_fraction: float
    classes: Mapping[str, ClassOutcome]
    ttft_s: tuple[float, ...]
    ttft_p99_by_prompt_s: Mapping[Size, float]
    tbt_s: tuple[float, ...]  # of all times between two tokens
    watts: Numbers  # by minute
    output_tokens: int
    requests: int
    lost: int
    retried: int
    preemptions: int
    starts: int
    boots: int
    clock_changes: int
    span_s: float
    kept: np.ndarray  # by request: all its deadlines

    @classmethod
    def of(
        cls, requests: Requests, books: Books, meter: Meter, totals: Totals, *, slo: Slo, prompts: Counts
    ) -> Outcome:
        """A request keeps its deadlines if its first token was in time and at most 1 % of the times between its tokens
        were longer than promised; one that was lost does not."""
        first, finished = np.array(books.first_token_s), np.array(books.finished_s)
        answered = finished >= 0.0
        ttft_s = first - requests.arrival_s
        limits_s = np.array([slo.ttft_s[size] for size in sorted(slo.ttft_s)])[prompts]
        gaps = requests.output_tokens - 1
        kept = answered & (ttft_s <= limits_s) & (np.array(books.slow_gaps) <= 0.01 * gaps)
        mean_gap_s = np.where(gaps > 0, (finished - first) / np.maximum(gaps, 1), 0.0)
        classes = prompts * 3 + output_sizes(requests)
        by_class = {}
        for number, one in enumerate(REQUEST_CLASSES):
            mine = answered & (classes == number)
            if mine.any():
                by_class[one.name] = ClassOutcome(
                    int((classes == number).sum()),
                    float(kept[classes == number].mean()),
                    _quantiles(ttft_s[mine]),
                    _quantiles(mean_gap_s[mine]),
                )
        return cls(
            energy_joules=float(sum(meter.joules)),
            host_joules=totals.host_joules,
            gpu_hours=totals.gpu_s / 3600.0,
            server_hours=totals.server_s / 3600.0,
            attainment_fraction=float(kept.mean()),
            classes=by_class,
            ttft_s=_quantiles(ttft_s[answered]),
            ttft_p99_by_prompt_s={
                size: _quantiles(ttft_s[answered & (prompts == size)])[-1]
                for size in Size
                if (answered & (prompts == size)).any()
            },
            tbt_s=_gap_quantiles(books.gap_counts),
            watts=meter.watts(requests.span_s),
            output_tokens=int(requests.output_tokens[answered].sum()),
            requests=requests.count,
            lost=books.lost,
            retried=books.retried,
            preemptions=books.preemptions,
            starts=totals.starts,
            boots=totals.boots,
            clock_changes=totals.clock_changes,
            span_s=requests.span_s,
            kept=kept,
        )

    @property
    def joules_per_token(self) -> float:
        """Per generated token."""
        return self.energy_joules / max(1, self.output_tokens)

    def keeps(self, slo: Slo) -> bool:
        """At the 99th percentile, in each class by the size of the prompt."""
        in_time = all(p99_s <= slo.ttft_s[size] for size, p99_s in self.ttft_p99_by_prompt_s.items())
        return in_time and self.tbt_s[-1] <= slo.tbt_s and self.attainment_fraction >= 0.99

    def cost(self, prices: Prices) -> float:
        return self.gpu_hours * prices.per_gpu_hour

    def carbon_g(self, prices: Prices) -> float:
        """Each minute at its hour's intensity; what is drawn after the trace's end at the last one's."""
        intensity = prices.carbon_g_per_kwh
        hours = (np.arange(self.watts.size) / 60.0).astype(np.int64) % len(intensity)
        by_minute = np.array(intensity)[hours]
        grams = float((self.watts * 60.0 * by_minute).sum())
        rest = self.energy_joules - float(self.watts.sum()) * 60.0
        return kwh_from_joules(grams + rest * float(by_minute[-1]))

    def power_watts(self, fraction: float) -> float:
        return float(np.quantile(self.watts, fraction))


def _quantiles(values: Numbers) -> tuple[float, ...]:
    if not values.size:
        return tuple(0.0 for _ in QUANTILES)
    return tuple(float(one) for one in np.quantile(values, QUANTILES))


def _gap_quantiles(counts: list[int]) -> tuple[float, ...]:
    """The upper edge of the half millisecond that it lies in."""
    sums = np.cumsum(counts)
    if not sums[-1]:
        return tuple(0.0 for _ in QUANTILES)
    return tuple(float((np.searchsorted(sums, one * sums[-1]) + 1) / 2000.0) for one in QUANTILES)
