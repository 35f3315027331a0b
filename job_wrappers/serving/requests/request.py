"""One request: a prompt in tokens, how to sample, who asks and how urgent it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from job_wrappers.serving.requests.params import SamplingParams


class Priority(IntEnum):
    """Lower goes first."""

    INTERACTIVE = 0
    BATCH = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    request_id: str
    model: str
    """Whose tokens the prompt is made of: the name of a loaded model, not the public name."""

    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    priority: Priority = Priority.INTERACTIVE
    caller: str = ""
    """Callers of one class get equal shares."""

    arrived_at_s: float
    """Monotonic."""

    deadline_s: float | None = None
    """Monotonic; past it the request is ended with finish reason `deadline`."""

    cache_salt: str = ""
    """Only requests of equal salt find each other's prefix in the cache."""
