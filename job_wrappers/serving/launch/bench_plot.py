"""A benchmark in one picture: latencies of each request over its time of arrival, and tokens per second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from job_wrappers.serving.errors import ConfigError
from job_wrappers.serving.launch.bench_client import FINISHED, Heard
from job_wrappers.serving.launch.bench_figures import first_token_s, per_token_s


def plot(heard: Sequence[Heard], path: Path, *, title: str) -> None:
    finished = [each for each in heard if each.outcome == FINISHED and each.chunk_times_s]
    others = [each for each in heard if each.outcome != FINISHED]
    figure = Figure(figsize=(9.0, 7.0), layout="constrained")
    FigureCanvasAgg(figure)
    first, between, rate = figure.subplots(3, 1, sharex=True)
    at_s = [each.sent_s for each in finished]
    first.plot(at_s, [1000 * first_token_s(each) for each in finished], ".", color="tab:blue")
    first.set_ylabel("first token, ms")
    first.set_title(title)
    for each in others:
        first.axvline(each.sent_s, color="tab:red", alpha=0.3, linewidth=0.8)
    timed = [(each.sent_s, per_token_s(each)) for each in finished]
    known = [(sent_s, 1000 * mean_s) for sent_s, mean_s in timed if mean_s is not None]
    between.plot([sent_s for sent_s, _ in known], [ms for _, ms in known], ".", color="tab:orange")
    between.set_ylabel("per further token, ms")
    seconds = _tokens_by_second(finished)
    rate.step(range(len(seconds)), seconds, where="post", color="tab:green")
    rate.set_ylabel("tokens/s of all requests")
    rate.set_xlabel("s after the begin" + ("; red: refused or failed" if others else ""))
    for axes in (first, between, rate):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.2)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as cause:
        raise ConfigError(f"--plot {path}: {cause}") from cause


def _tokens_by_second(heard: Sequence[Heard]) -> list[float]:
    """A piece of text may hold several tokens: each request's tokens are dealt out over its pieces."""
    found: Counter[int] = Counter()
    for each in heard:
        for at_s in each.chunk_times_s:
            found[int(at_s)] += each.completion_tokens / len(each.chunk_times_s)  # type: ignore[assignment]
    return [found[second] for second in range(max(found, default=-1) + 1)]
