"""What a benchmark's answers come to: latencies, rates, joules. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from job_wrappers.serving.launch.bench_client import FINISHED, REFUSED, Heard

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchFigures:
    """Latencies by percentile, of finished requests; None: unknown or nothing finished."""

    requests: int
    finished: int
    refused: int
    failed: int
    outcomes: dict[str, int]
    duration_s: float
    """From the first request sent to the last answer."""

    sent_late_s: float
    """The most that a request went out after its time: if this is much, the client was too slow, not the server."""

    prompt_tokens: int
    generated_tokens: int
    requests_per_s: float
    generated_tokens_per_s: float
    first_token_s: dict[str, float | None]
    per_token_s: dict[str, float | None]
    """Of each request: mean time between its tokens, after the first."""

    longest_gap_s: dict[str, float | None]
    """Of each request: the longest wait between two pieces of its text."""

    whole_s: dict[str, float | None]
    energy_joules: float | None
    """Counted by the server while it was measured, idle moments included."""

    requests_joules: float | None
    """The sum of what the requests were told."""

    joules_per_token: float | None
    mean_watts: float | None


def figures_of(heard: Sequence[Heard], *, duration_s: float, energy_joules: float | None) -> BenchFigures:
    finished = [each for each in heard if each.outcome == FINISHED and each.chunk_times_s]
    outcomes = Counter(each.outcome for each in heard)
    tokens = sum(each.completion_tokens for each in finished)
    shares = [each.energy_joules for each in finished]
    known = [share for share in shares if share is not None]
    return BenchFigures(
        requests=len(heard),
        finished=len(finished),
        refused=outcomes[REFUSED],
        failed=len(heard) - len(finished) - outcomes[REFUSED],
        outcomes=dict(outcomes),
        duration_s=duration_s,
        sent_late_s=max((each.sent_s - each.ask.at_s for each in heard), default=0.0),
        prompt_tokens=sum(each.ask.prompt_tokens for each in finished),
        generated_tokens=tokens,
        requests_per_s=len(finished) / duration_s if duration_s > 0 else 0.0,
        generated_tokens_per_s=tokens / duration_s if duration_s > 0 else 0.0,
        first_token_s=percentiles([first_token_s(each) for each in finished]),
        per_token_s=percentiles([each for each in map(per_token_s, finished) if each is not None]),
        longest_gap_s=percentiles([each for each in map(_longest_gap_s, finished) if each is not None]),
        whole_s=percentiles([each.chunk_times_s[-1] - each.sent_s for each in finished]),
        energy_joules=energy_joules,
        requests_joules=sum(known) if known and len(known) == len(shares) else None,
        joules_per_token=energy_joules / tokens if energy_joules is not None and tokens else None,
        mean_watts=energy_joules / duration_s if energy_joules is not None and duration_s > 0 else None,
    )


def first_token_s(heard: Heard) -> float:
    return heard.chunk_times_s[0] - heard.sent_s


def per_token_s(heard: Heard) -> float | None:
    if heard.completion_tokens < 2:
        return None
    return (heard.chunk_times_s[-1] - heard.chunk_times_s[0]) / (heard.completion_tokens - 1)


def _longest_gap_s(heard: Heard) -> float | None:
    return max((after - before for before, after in pairwise(heard.chunk_times_s)), default=None)


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """The value that so many per cent do not exceed."""
    ordered = sorted(values)
    return {f"p{n}": ordered[max(0, -(-n * len(ordered) // 100) - 1)] if ordered else None for n in PERCENTILES}
