"""The JSON of the OpenAI API: whole answers, chunks of a stream, usage, errors. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from job_wrappers.serving.errors import RequestRefused
from job_wrappers.serving.requests.output import ChoiceOutput, FinishReason, RequestUsage, TokenLogprob

Json = dict[str, Any]
TokenText = Callable[[int], str]

_TYPES = {400: "invalid_request_error", 403: "permission_error", 404: "not_found_error", 408: "timeout_error",
          409: "conflict_error", 413: "invalid_request_error", 429: "rate_limit_error",
          503: "service_unavailable_error"}  # fmt: skip

_LEAST_LOGPROB = -9999.0
"""JSON has no infinity; vLLM writes the same number."""

_UNFINISHED = "\ufffd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What every part of one answer says."""

    answer_id: str
    created_unix_s: int
    model: str
    chat: bool
    token_text: TokenText | None
    """None: the model has no tokenizer, so tokens are shown as their numbers."""


@dataclass(slots=True)
class Choice:
    """What has been handed out of one choice."""

    begun: bool = False
    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    shown_characters: int = 0
    """Of its tokens, one by one: where the next one of a list of logprobs begins."""

    def add(self, output: ChoiceOutput) -> None:
        self.texts.append(output.text)
        self.logprobs += output.logprobs
        self.finish_reason = output.finish_reason or self.finish_reason


def whole(head: Head, choices: Sequence[Choice], usages: Sequence[RequestUsage]) -> Json:
    kind = "chat.completion" if head.chat else "text_completion"
    shown = [_whole_choice(head, index, choice) for index, choice in enumerate(choices)]
    return _head(head, kind) | {"choices": shown, "usage": usage(usages)}


def chunk(head: Head, index: int, choice: Choice, output: ChoiceOutput) -> Json:
    """`choice` is told that it was shown."""
    shown: Json = {"index": index, "finish_reason": output.finish_reason}
    if not head.chat:
        shown["text"] = output.text
    elif choice.begun:
        shown["delta"] = {"content": output.text} if output.text else {}
    else:
        shown["delta"] = {"role": "assistant", "content": output.text}
    shown["logprobs"] = _logprobs(head, choice, output.logprobs)
    choice.begun = True
    return _chunk_head(head) | {"choices": [shown]}


def usage_chunk(head: Head, usages: Sequence[RequestUsage]) -> Json:
    return _chunk_head(head) | {"choices": [], "usage": usage(usages)}


def usage(usages: Sequence[RequestUsage]) -> Json:
    """`energy_joules` and `timing` are ours. Energy is null where no counter can be read."""
    joules = [u.energy_joules for u in usages if u.energy_joules is not None]
    prompt, completion = sum(u.prompt_tokens for u in usages), sum(u.completion_tokens for u in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(u.cached_tokens for u in usages)},
        "energy_joules": sum(joules) if joules and len(joules) == len(usages) else None,
        "timing": {
            "queued_s": max((u.queued_s for u in usages), default=None),
            "time_to_first_token_s": max((u.time_to_first_token_s or 0.0 for u in usages), default=None),
            "total_s": max((u.total_s for u in usages), default=None),
            "preemptions": sum(u.preemptions for u in usages),
        },
    }


def error(refusal: RequestRefused) -> Json:
    kind = _TYPES.get(refusal.status, "server_error" if refusal.status >= 500 else "invalid_request_error")
    return {"error": {"message": str(refusal), "type": kind, "param": refusal.parameter, "code": refusal.status}}


def error_headers(refusal: RequestRefused) -> dict[str, str]:
    wait_s = refusal.retry_after_s
    return {} if wait_s is None else {"Retry-After": str(max(1, round(wait_s)))}


def encoded(content: Json) -> bytes:
    """ASCII: a text may hold half a character that no other encoding can write."""
    return json.dumps(content).encode()


def _head(head: Head, kind: str) -> Json:
    return {"id": head.answer_id, "object": kind, "created": head.created_unix_s, "model": head.model}


def _chunk_head(head: Head) -> Json:
    return _head(head, "chat.completion.chunk" if head.chat else "text_completion")


def _whole_choice(head: Head, index: int, choice: Choice) -> Json:
    text = "".join(choice.texts)
    return {
        "index": index,
        **({"message": {"role": "assistant", "content": text}} if head.chat else {"text": text}),
        "logprobs": _logprobs(head, choice, choice.logprobs),
        "finish_reason": choice.finish_reason,
    }


def _logprobs(head: Head, choice: Choice, tokens: Sequence[TokenLogprob]) -> Json | None:
    if not tokens:
        return None
    if head.chat:
        content = [_entry(head, t.token_id, t.logprob) | {"top_logprobs": _top(head, t)} for t in tokens]
        return {"content": content}
    texts = [_text(head, t.token_id) for t in tokens]
    offsets = []
    for text in texts:
        offsets.append(choice.shown_characters)
        choice.shown_characters += len(text)
    return {
        "tokens": texts,
        "token_logprobs": [max(t.logprob, _LEAST_LOGPROB) for t in tokens],
        "top_logprobs": [_by_text(head, t) for t in tokens],
        "text_offset": offsets,
    }


def _top(head: Head, token: TokenLogprob) -> list[Json]:
    return [_entry(head, token_id, logprob) for token_id, logprob in token.top]


def _by_text(head: Head, token: TokenLogprob) -> dict[str, float]:
    """The chosen one too, as OpenAI's does. Of two tokens that are shown alike, the more probable."""
    found: dict[str, float] = {}
    for token_id, logprob in (*token.top, (token.token_id, token.logprob)):
        found.setdefault(_text(head, token_id), max(logprob, _LEAST_LOGPROB))
    return found


def _entry(head: Head, token_id: int, logprob: float) -> Json:
    text = _text(head, token_id)
    return {
        "token": text,
        "logprob": max(logprob, _LEAST_LOGPROB),
        "bytes": None if _UNFINISHED in text else list(text.encode()),
    }


def _text(head: Head, token_id: int) -> str:
    return str(token_id) if head.token_text is None else head.token_text(token_id)
