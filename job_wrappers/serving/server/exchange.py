"""One HTTP request on the engine: handed in, heard, and cancelled if its client leaves. Lives on the server's loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from job_wrappers.serving.errors import DeadlinePassed, NotServing, RequestRefused, ServingError
from job_wrappers.serving.requests.output import ChoiceOutput, FinishReason, RequestUsage
from job_wrappers.serving.server import answers
from job_wrappers.serving.server.answers import Choice, Head
from job_wrappers.serving.server.engine_client import EngineClient
from job_wrappers.serving.server.mailbox import Mailbox
from job_wrappers.serving.server.metrics import Answered
from job_wrappers.serving.server.parse import Parsed


class Desk:
    """What all HTTP requests share."""

    def __init__(self, engine: EngineClient, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self.engine, self.now_s = engine, now_s
        self.started_unix_s = int(time.time())
        self.answered = Answered()
        self.open: set[Exchange] = set()
        self._mailbox: Mailbox | None = None

    def mailbox(self) -> Mailbox:
        """Only to be called on the loop that answers."""
        if self._mailbox is None:
            self._mailbox = Mailbox(asyncio.get_running_loop())
        return self._mailbox

    def end_all(self, text: str) -> None:
        """Answer whatever is not answered yet with 503."""
        for exchange in list(self.open):
            exchange.fail(NotServing(text, retry_after_s=5.0))


class Exchange:
    """With several prompts it has several requests on the engine; their choices are numbered through."""

    def __init__(self, desk: Desk, parsed: Parsed, head: Head) -> None:
        self.parsed, self._desk, self._head = parsed, desk, head
        self._places = {request.request_id: i * parsed.n for i, request in enumerate(parsed.requests)}
        self._choices = [Choice() for _ in range(len(parsed.requests) * parsed.n)]
        self._heard_at_s: list[float | None] = [None] * len(self._choices)
        self._usages: list[RequestUsage] = []
        self._failure: RequestRefused | None = None
        self._new: list[ChoiceOutput] = []
        self._bell = asyncio.Event()

    async def submit(self) -> None:
        """Raise RequestRefused kinds; then nothing of it runs."""
        self._desk.open.add(self)
        listener = self._desk.mailbox().listener(self._hear)
        taken = [asyncio.wrap_future(self._desk.engine.submit(r, listener)) for r in self.parsed.requests]
        try:
            await asyncio.gather(*taken)
        except BaseException as cause:
            self.close()
            if isinstance(cause, ServingError) and not isinstance(cause, RequestRefused):
                raise NotServing(str(cause)) from cause
            raise

    async def whole(self) -> answers.Json:
        await self._bell.wait()
        if self._failure is not None:
            raise self._failure
        return answers.whole(self._head, self._choices, self._usages)

    async def events(self) -> AsyncIterator[bytes]:
        """Server-sent events. What goes wrong after the first byte is an event too."""
        while self._new or not self._ended:
            await self._bell.wait()
            self._bell.clear()
            new, self._new = self._new, []
            if new:
                yield b"".join(map(self._chunk, new))
        if self._failure is not None:
            yield _event(answers.error(self._failure))
        elif self.parsed.stream_usage:
            yield _event(answers.usage_chunk(self._head, self._usages))
        yield b"data: [DONE]\n\n"

    def fail(self, refusal: RequestRefused) -> None:
        self._failure = self._failure or refusal
        self._bell.set()

    def close(self) -> None:
        """Whatever still runs of it is cancelled."""
        self._desk.open.discard(self)
        if len(self._usages) < len(self.parsed.requests):
            for request in self.parsed.requests:
                self._desk.engine.cancel(request.request_id)

    @property
    def _ended(self) -> bool:
        return self._failure is not None or len(self._usages) == len(self.parsed.requests)

    def _hear(self, output: ChoiceOutput) -> None:
        refusal = _refusal(output)
        if refusal is not None:
            self.fail(refusal)
            return
        self._measure(output)
        if self.parsed.stream:
            self._new.append(output)
            self._bell.set()
        else:
            self._choices[self._index(output)].add(output)
            if self._ended:
                self._bell.set()

    def _measure(self, output: ChoiceOutput) -> None:
        priority, index, now_s = self.parsed.requests[0].priority, self._index(output), self._desk.now_s()
        before_s = self._heard_at_s[index]
        if output.token_ids:
            if before_s is not None:
                self._desk.answered.add_gap(priority, now_s - before_s)
            self._heard_at_s[index] = now_s
        if output.usage is not None:
            self._usages.append(output.usage)
            self._desk.answered.add(priority, output.usage)

    def _index(self, output: ChoiceOutput) -> int:
        return self._places[output.request_id] + output.choice

    def _chunk(self, output: ChoiceOutput) -> bytes:
        index = self._index(output)
        return _event(answers.chunk(self._head, index, self._choices[index], output))


def _refusal(output: ChoiceOutput) -> RequestRefused | None:
    if output.finish_reason is FinishReason.DEADLINE:
        return DeadlinePassed("deadline_ms passed before the answer was complete", parameter="deadline_ms")
    if output.finish_reason is FinishReason.ERROR or output.error is not None:
        return RequestRefused(output.error or "the engine failed")
    if output.finish_reason is FinishReason.CANCELLED:
        return NotServing("the request was cancelled", retry_after_s=5.0)
    return None


def _event(content: answers.Json) -> bytes:
    return b"data: " + answers.encoded(content) + b"\n\n"
