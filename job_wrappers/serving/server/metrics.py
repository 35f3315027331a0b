"""/metrics in Prometheus' text format: the names that vLLM's users know, and ours for energy and steering. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate

from job_wrappers.serving.engine.views import EngineStatus, ModelState
from job_wrappers.serving.requests.output import RequestUsage
from job_wrappers.serving.requests.request import Priority

_FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
                  40.0, 80.0, 160.0, 640.0, 2560.0)  # fmt: skip
_BETWEEN_TOKENS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
                     5.0, 7.5, 10.0, 20.0, 40.0, 80.0)  # fmt: skip
_WHOLE_S = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
            960.0, 1920.0, 7680.0)  # fmt: skip
_ONE_TWO_FIVE = tuple(step * 10.0**power for power in range(6) for step in (1, 2, 5))
_JOULES = tuple(step * 10.0**power for power in range(-2, 6) for step in (1, 2, 5))

Labels = Mapping[str, str]
Sample = tuple[str, Labels, float]
Metric = tuple[str, str, str, list[Sample]]
"""name, kind, what it is, samples"""


class Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def samples(self, name: str, labels: Labels) -> Iterator[Sample]:
        edges = [f"{bound:g}" for bound in self._bounds] + ["+Inf"]
        for edge, count in zip(edges, accumulate(self._counts), strict=True):
            yield f"{name}_bucket", {**labels, "le": edge}, count
        yield f"{name}_sum", labels, self._sum
        yield f"{name}_count", labels, sum(self._counts)


_HISTOGRAMS = {
    "vllm:time_to_first_token_seconds": ("From arrival to the first token.", _FIRST_TOKEN_S),
    "vllm:inter_token_latency_seconds": ("From token to token, as handed to the client.", _BETWEEN_TOKENS_S),
    "vllm:e2e_request_latency_seconds": ("From arrival to the last token.", _WHOLE_S),
    "vllm:request_queue_time_seconds": ("From arrival to the first iteration.", _WHOLE_S),
    "vllm:request_prompt_tokens": ("Tokens of a prompt.", _ONE_TWO_FIVE),
    "vllm:request_generation_tokens": ("Tokens of an answer, all choices together.", _ONE_TWO_FIVE),
    "slurm_power_request_energy_joules": ("A request's share of the GPUs' energy.", _JOULES),
}


class Answered:
    """Distributions over the requests that were answered, by class."""

    def __init__(self) -> None:
        self._of = {
            priority: {name: Histogram(bounds) for name, (_, bounds) in _HISTOGRAMS.items()} for priority in Priority
        }
        self.prompt_tokens = 0
        self.cached_tokens = 0

    def add_gap(self, priority: Priority, gap_s: float) -> None:
        self._of[priority]["vllm:inter_token_latency_seconds"].add(gap_s)

    def add(self, priority: Priority, usage: RequestUsage) -> None:
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        values = {
            "vllm:time_to_first_token_seconds": usage.time_to_first_token_s,
            "vllm:e2e_request_latency_seconds": usage.total_s,
            "vllm:request_queue_time_seconds": usage.queued_s,
            "vllm:request_prompt_tokens": usage.prompt_tokens,
            "vllm:request_generation_tokens": usage.completion_tokens,
            "slurm_power_request_energy_joules": usage.energy_joules,
        }
        for name, value in values.items():
            if value is not None:
                self._of[priority][name].add(value)

    def metrics(self, labels: Labels) -> Iterator[Metric]:
        for name, (about, _) in _HISTOGRAMS.items():
            samples: list[Sample] = []
            for priority, of in self._of.items():
                samples += of[name].samples(name, {**labels, "priority": priority.name.lower()})
            yield name, "histogram", about, samples


def render(status: EngineStatus, answered: Answered) -> str:
    labels = {"model_name": status.public_name}
    lines: list[str] = []
    for name, kind, about, samples in (*_of_engine(status, answered, labels), *answered.metrics(labels)):
        if samples:
            lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
            lines += [f"{sample}{_shown(of)} {value:.10g}" for sample, of, value in samples]
    return "\n".join(lines) + "\n"


def _of_engine(status: EngineStatus, answered: Answered, labels: Labels) -> Iterator[Metric]:
    def gauge(name: str, about: str, value: float | None) -> Metric:
        return name, "gauge", about, [] if value is None else [(name, labels, value)]

    def counter(name: str, about: str, value: float | None) -> Metric:
        return name, "counter", about, [] if value is None else [(name, labels, value)]

    models, limits = status.models, status.limits
    total, held = sum(m.blocks_total for m in models), sum(m.blocks_held for m in models)
    yield gauge("vllm:num_requests_running", "Sequences in iterations.", sum(m.running for m in models))
    yield gauge("vllm:num_requests_waiting", "Sequences that wait.", sum(m.waiting for m in models))
    yield gauge("vllm:kv_cache_usage_perc", "Held share of the cache blocks; 1: all.", held / total if total else 0.0)
    yield counter("vllm:num_preemptions_total", "Preemptions.", status.preemptions_total)
    yield counter("vllm:prompt_tokens_total", "Prompt tokens computed.", status.prompt_tokens_total)
    yield counter("vllm:generation_tokens_total", "Tokens generated.", status.generated_tokens_total)
    yield counter("vllm:prefix_cache_queries_total", "Prompt tokens looked for in the cache.", answered.prompt_tokens)
    yield counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the cache.", answered.cached_tokens)
    name, ended = "vllm:request_success_total", sorted(status.finished_total.items())
    finished: list[Sample] = [(name, {**labels, "finished_reason": reason}, float(count)) for reason, count in ended]
    yield name, "counter", "Requests that ended, by reason.", finished
    yield gauge("slurm_power_tokens_per_second", "Generated, over the last seconds.", status.tokens_per_s)
    yield gauge("slurm_power_joules_per_token", "Of the GPUs, over the last seconds.", status.joules_per_token)
    yield gauge("slurm_power_watts", "Of the GPUs, over the last seconds.", status.watts)
    yield counter("slurm_power_energy_joules_total", "Of the GPUs since the start.", status.energy_joules_total)
    yield gauge("slurm_power_max_num_seqs", "The limit in force.", limits.max_num_seqs)
    yield gauge("slurm_power_max_batched_tokens", "The limit in force.", limits.max_batched_tokens)
    yield gauge("slurm_power_sm_clock_mhz", "What was asked for.", status.sm_clock_mhz)
    name = "slurm_power_least_slack_seconds"
    slack = {c: view.least_slack_s for c, view in status.classes.items()}
    nearest: list[Sample] = [(name, {**labels, "priority": c}, s) for c, s in slack.items() if s is not None]
    yield name, "gauge", "Time to the nearest deadline or service level.", nearest
    name = "slurm_power_model_active"
    active: list[Sample] = [(name, {"model_name": m.name}, float(m.state is ModelState.ACTIVE)) for m in models]
    yield name, "gauge", "1 for the model that takes requests.", active


def _shown(labels: Labels) -> str:
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
