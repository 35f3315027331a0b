"""One choice of one request on its way through the engine."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from enum import Enum

from job_wrappers.serving.kv.block_table import BlockTable
from job_wrappers.serving.requests.output import FinishReason
from job_wrappers.serving.requests.request import Priority, Request


class Status(Enum):
    WAITING = "waiting"
    """Nothing of it is in the cache; also after a preemption by recomputation."""

    RUNNING = "running"
    SWAPPED = "swapped"
    FINISHED = "finished"


class Sequence:
    """Compared by identity."""

    __slots__ = (
        "age", "cached_tokens", "choice", "computed_tokens", "finish_reason", "first_scheduled_at_s", "forked",
        "longest", "preemptions", "prompt_length", "request", "status", "table", "token_ids", "urgent_at_s",
    )  # fmt: skip

    def __init__(
        self, request: Request, table: BlockTable, *, choice: int = 0, max_model_len: int, patience_s: float = 0.0
    ) -> None:
        self.request, self.choice, self.table = request, choice, table
        self.age = (request.arrived_at_s, request.request_id, choice)
        """Orders sequences of a class: the largest is the newest."""

        batch = request.priority is Priority.BATCH
        self.urgent_at_s = request.arrived_at_s + patience_s if batch else float("-inf")
        """From then on it counts as interactive, for good: it is not preempted for what comes after it."""

        self.token_ids: list[int] = list(request.prompt_token_ids)
        self.prompt_length = len(self.token_ids)
        self.computed_tokens = 0
        """Of them, keys and values are in the cache."""

        self.status = Status.WAITING
        self.finish_reason: FinishReason | None = None
        self.longest = min(max_model_len, self.prompt_length + request.params.max_tokens)
        self.cached_tokens = 0
        """Of the prompt, found in the cache when it was first scheduled."""

        self.preemptions = 0
        self.first_scheduled_at_s: float | None = None
        self.forked = False
        """Whether the request's other choices have been made (of choice 0)."""

    def priority(self, now_s: float) -> Priority:
        """As it counts now."""
        return Priority.INTERACTIVE if now_s >= self.urgent_at_s else Priority.BATCH

    @property
    def seats(self) -> int:
        """How many will run when its prompt is complete."""
        return self.request.params.n if self.choice == 0 and not self.forked else 1

    @property
    def remaining_tokens(self) -> int:
        """To be computed before the next one can be sampled; 1 while decoding."""
        return len(self.token_ids) - self.computed_tokens

    @property
    def generated(self) -> Tokens[int]:
        return self.token_ids[self.prompt_length :]

    @property
    def generated_tokens(self) -> int:
        return len(self.token_ids) - self.prompt_length

    @property
    def finished(self) -> bool:
        return self.status is Status.FINISHED

    @property
    def full_length(self) -> bool:
        """No further token may follow."""
        return len(self.token_ids) >= self.longest
