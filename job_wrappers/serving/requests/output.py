"""What the engine hands out for one choice of one request after an iteration."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FinishReason(StrEnum):
    STOP = "stop"
    """An end-of-sequence token, a stop token or a stop string."""

    LENGTH = "length"
    """max_tokens, or the model's own length."""

    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    """(token, logprob) of the most probable, best first; as many as were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestUsage:
    """Said once, with the last choice that finishes."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    energy_joules: float | None
    """Share of the GPUs' energy counters; None: no counter can be read here."""

    queued_s: float
    time_to_first_token_s: float | None
    total_s: float
    preemptions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceOutput:
    """New tokens of one choice. `text` is only what became final: bytes of an unfinished character stay back."""

    request_id: str
    choice: int
    token_ids: tuple[int, ...] = ()
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    usage: RequestUsage | None = None
    error: str | None = None
