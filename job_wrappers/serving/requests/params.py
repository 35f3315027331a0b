"""How tokens are chosen for one request. The names and ranges are those of the OpenAI API and of vLLM."""

from __future__ import annotations

from dataclasses import dataclass

from job_wrappers.serving.errors import BadRequest

MAX_LOGPROBS = 20
MAX_CHOICES = 128
MAX_STOPS = 16
"""Each is looked for at every token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Raises BadRequest, naming the parameter, for a value outside its range."""

    max_tokens: int = 16
    temperature: float = 1.0
    """0: the most probable token, always."""

    top_k: int = 0
    """0: off."""

    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    """With a seed the same request gives the same tokens, whatever runs beside it. Choice i draws from seed + i."""

    stop: tuple[str, ...] = ()
    include_stop: bool = False
    """Whether the stop string stays in the text."""

    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    logprobs: int | None = None
    """How many of the most probable tokens to report beside the chosen one; 0: the chosen one alone."""

    n: int = 1
    """Choices; they share the prompt's blocks."""

    def __post_init__(self) -> None:
        _require(self.max_tokens >= 1, "max_tokens", self.max_tokens, "must be at least 1")
        _require(0.0 <= self.temperature <= 100.0, "temperature", self.temperature, "must be within 0 and 100")
        _require(self.top_k >= 0, "top_k", self.top_k, "must be 0 (off) or more")
        _require(0.0 < self.top_p <= 1.0, "top_p", self.top_p, "must be above 0 and at most 1")
        _require(0.0 <= self.min_p <= 1.0, "min_p", self.min_p, "must be within 0 and 1")
        penalty = self.repetition_penalty
        _require(0.0 < penalty <= 100.0, "repetition_penalty", penalty, "must be above 0 and at most 100")
        _require(-2.0 <= self.presence_penalty <= 2.0, "presence_penalty", self.presence_penalty, _WITHIN_2)
        _require(-2.0 <= self.frequency_penalty <= 2.0, "frequency_penalty", self.frequency_penalty, _WITHIN_2)
        seed = self.seed
        _require(seed is None or -(2**63) <= seed < 2**63, "seed", seed, "must fit 64 bits")
        _require(len(self.stop) <= MAX_STOPS, "stop", f"{len(self.stop)} strings", f"must be at most {MAX_STOPS}")
        _require(all(self.stop), "stop", list(self.stop), "must not hold an empty string")
        asked = self.logprobs
        _require(asked is None or 0 <= asked <= MAX_LOGPROBS, "logprobs", asked, f"must be within 0 and {MAX_LOGPROBS}")
        _require(1 <= self.n <= MAX_CHOICES, "n", self.n, f"must be within 1 and {MAX_CHOICES}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0


_WITHIN_2 = "must be within -2 and 2"


def _require(condition: bool, name: str, value: object, rule: str) -> None:
    if not condition:
        raise BadRequest(f"{name} = {value}: {rule}", parameter=name)
