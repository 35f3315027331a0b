"""An engine without a model: it answers the prompt's own tokens, over and over, when the test lets it. No torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from job_wrappers.serving.engine.figures import Quantiles
from job_wrappers.serving.engine.views import (
    ClassView,
    EngineStatus,
    ModelState,
    ModelView,
    ServedModel,
    Steered,
)
from job_wrappers.serving.errors import BadRequest, NotServing, RequestRefused, ServingError, UnknownModel
from job_wrappers.serving.requests.output import ChoiceOutput, FinishReason, RequestUsage, TokenLogprob
from job_wrappers.serving.requests.request import Request
from job_wrappers.serving.scheduling.scheduler import Limits

Listener = Callable[[ChoiceOutput], None]
NOTHING = Quantiles(None, None, None, 0)
MOST_TOKENS = 64
JOULES = 2.5


class Letters:
    """A tokenizer: each byte is a token."""

    def encode(self, text: str, *, most_tokens: int) -> tuple[int, ...]:
        try:
            tokens = tuple(text.encode())
        except UnicodeEncodeError as cause:
            raise BadRequest("not Unicode", parameter="prompt") from cause
        if not 0 < len(tokens) <= most_tokens:
            raise BadRequest(f"{len(tokens)} tokens", parameter="prompt")
        return tokens

    def chat(self, messages: Sequence[Mapping[str, Any]], *, most_tokens: int) -> tuple[int, ...]:
        for message in messages:
            if not isinstance(message["content"], str):
                raise BadRequest("content: must be a text", parameter="messages")
        text = "".join(f"{message['role']}:{message['content']}" for message in messages)
        return self.encode(text, most_tokens=most_tokens)

    def token_text(self, token_id: int) -> str:
        return bytes([token_id]).decode("latin-1")


class FakeEngine:
    """`refuse`: what the next requests are refused with. `ends_with`: instead of the reason `length`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.taken: list[Request] = []
        self.cancelled: list[str] = []
        self.calls: list[tuple[Any, ...]] = []
        self.refuse: list[RequestRefused | ServingError] = []
        self.ends_with: FinishReason | None = None
        self.draining, self.asleep, self.active_name = False, False, "large"
        self.limits = Limits(max_num_seqs=8, max_batched_tokens=512, max_waiting=16)
        self.steered: Steered | None = None
        self.failure: str | None = None
        self._live: dict[str, Listener] = {}
        self._go = threading.Event()
        self._go.set()

    def hold(self) -> None:
        """From now on answers stop after their first token."""
        self._go.clear()

    def go(self) -> None:
        self._go.set()

    def active(self) -> ServedModel:
        if self.asleep:
            raise NotServing("the model sleeps", retry_after_s=5.0)
        return ServedModel(
            name=self.active_name,
            public_name="chat",
            names=frozenset({"chat", "large", "small"}),
            text=Letters(),  # type: ignore[arg-type]
            vocabulary=256,
            max_model_len=MOST_TOKENS,
            created_unix_s=1,
        )

    def submit(self, request: Request, listener: Listener) -> Future[None]:
        future: Future[None] = Future()
        if self.draining:
            future.set_exception(NotServing("the server is draining", retry_after_s=5.0))
        elif self.refuse:
            future.set_exception(self.refuse.pop(0))
        else:
            self.taken.append(request)
            self._live[request.request_id] = listener
            threading.Thread(target=self._answer, args=(request,), daemon=True).start()
            future.set_result(None)
        return future

    def cancel(self, request_id: str) -> None:
        self._live.pop(request_id, None)
        self.cancelled.append(request_id)

    def unfinished(self) -> int:
        return len(self._live)

    def _answer(self, request: Request) -> None:
        """Choice i begins with the prompt's token i."""
        count = min(request.params.max_tokens, MOST_TOKENS - len(request.prompt_token_ids))
        for step in range(count):
            if step == 1:
                self._go.wait(30)
            for choice in range(request.params.n):
                if request.request_id in self._live:
                    self._live[request.request_id](self._output(request, choice, step, last=step == count - 1))
        self._live.pop(request.request_id, None)

    def _output(self, request: Request, choice: int, step: int, *, last: bool) -> ChoiceOutput:
        prompt = request.prompt_token_ids
        token = prompt[(choice + step) % len(prompt)]
        top = tuple((token, -0.5) for _ in range(1)) if request.params.logprobs else ()
        reason = (self.ends_with or FinishReason.LENGTH) if last else None
        usage = _usage(request, step + 1) if last and choice == request.params.n - 1 else None
        return ChoiceOutput(
            request_id=request.request_id,
            choice=choice,
            token_ids=(token,),
            text=chr(token),
            logprobs=() if request.params.logprobs is None else (TokenLogprob(token, float("-inf"), top),),
            finish_reason=reason,
            usage=usage,
            error="it broke" if reason is FinishReason.ERROR else None,
        )

    # --- steering ---------------------------------------------------------------------------------------------------

    def set_limits(self, *, max_num_seqs: int | None = None, max_batched_tokens: int | None = None) -> Limits:
        if max_num_seqs is not None and max_num_seqs < 1:
            raise BadRequest(f"max_num_seqs = {max_num_seqs}: must be at least 1", parameter="max_num_seqs")
        self.limits = replace(self.limits, max_num_seqs=max_num_seqs or self.limits.max_num_seqs)
        self.steered = Steered(what=f"max_num_seqs {max_num_seqs}", effect_s=0.25)
        return self.limits

    def set_clock(self, mhz: int | None) -> None:
        raise ServingError("no clock can be set here")

    def switch_model(self, name: str) -> None:
        if name not in ("large", "small"):
            raise UnknownModel(f"no model {name}", parameter="model")
        self.active_name = name

    def sleep(self) -> None:
        self.asleep = True

    def wake(self) -> None:
        self.asleep = False

    def drain(self) -> None:
        self.draining = True

    def status(self) -> EngineStatus:
        states = {
            name: ModelState.ACTIVE if name == self.active_name else ModelState.ASLEEP for name in ("large", "small")
        }
        view = ClassView(
            running=0, waiting=0, least_slack_s=1.5, first_token=NOTHING, between_tokens=NOTHING, whole=NOTHING
        )
        return EngineStatus(
            public_name="chat",
            active=self.active_name,
            draining=self.draining,
            models=tuple(ModelView(name=name, state=state, blocks_total=10) for name, state in states.items()),
            classes={"interactive": view, "batch": replace(view, least_slack_s=None)},
            limits=self.limits,
            sm_clock_mhz=None,
            tokens_per_s=3.5,
            joules_per_token=None,
            watts=None,
            prompt_tokens_total=7,
            generated_tokens_total=9,
            preemptions_total=1,
            finished_total={"stop": 2},
            energy_joules_total=12.0,
            last_steered=self.steered,
            switch_s=None,
            failure=self.failure,
        )


def _usage(request: Request, tokens: int) -> RequestUsage:
    return RequestUsage(
        prompt_tokens=len(request.prompt_token_ids),
        cached_tokens=1,
        completion_tokens=tokens * request.params.n,
        energy_joules=JOULES,
        queued_s=0.1,
        time_to_first_token_s=0.2,
        total_s=0.3,
        preemptions=0,
    )


def until(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> bool:
    """Whether it came true."""
    end_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.005)
    return condition()
