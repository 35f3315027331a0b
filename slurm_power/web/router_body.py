"""What the router must know of a request's body: model, lengths, caller. The rest is the instance's to check. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

_CHAT_DEFAULT_TOKENS = None
_COMPLETION_DEFAULT_TOKENS = 16
_MOST_TOKENS = 10_000_000
_MOST_NAME = 200
_CHARACTERS_PER_TOKEN = 4.0
"""Of a text, until answers have told better."""


class BadBody(Exception):
    """Refused with 400; the text says what the client must change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    model: str  # "": the client names none
    caller: str  # "": the client does not say
    prompt_tokens: int | None  # None: the prompt is a text
    prompt_characters: int
    max_tokens: int | None
    stream: bool


def read_body(raw: bytes, *, chat: bool) -> Body:
    """Raise BadBody."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as cause:
        raise BadBody("the body is not JSON") from cause
    if not isinstance(body, dict):
        raise BadBody("the body must be a JSON object")
    tokens, characters = _of_messages(body.get("messages")) if chat else _of_prompt(body.get("prompt"))
    return Body(
        model=_text(body, "model"),
        caller=_text(body, "user"),
        prompt_tokens=tokens,
        prompt_characters=characters,
        max_tokens=_max_tokens(body, chat=chat),
        stream=_flag(body, "stream"),
    )


def _of_prompt(prompt: object) -> tuple[int | None, int]:
    """A text, several, a list of tokens, or several of those."""
    if isinstance(prompt, str) and prompt:
        return None, len(prompt)
    if isinstance(prompt, list) and prompt:
        if isinstance(prompt[0], int):
            return len(prompt), 0
        if all(isinstance(each, str) for each in prompt):
            return None, sum(map(len, prompt))
        if all(isinstance(each, list) for each in prompt):
            return sum(map(len, prompt)), 0
    raise BadBody("prompt: must be a text, a list of tokens, or a list of those")


def _of_messages(messages: object) -> tuple[int | None, int]:
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise BadBody("messages: must be a list of messages")
    return None, sum(_characters(one.get("content")) for one in messages)


def _characters(content: object) -> int:
    """A text, or parts with texts in them."""
    if isinstance(content, str):
        return len(content)
    if isinstance(content, list):
        return sum(
            len(part["text"]) for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    raise BadBody("messages: content must be a text or a list of parts")


def _max_tokens(body: dict[str, Any], *, chat: bool) -> int | None:
    for name in ("max_completion_tokens", "max_tokens") if chat else ("max_tokens",):
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_TOKENS:
            raise BadBody(f"{name}: must be a whole number of at least 1")
        return value
    return _CHAT_DEFAULT_TOKENS if chat else _COMPLETION_DEFAULT_TOKENS


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadBody(f"{name}: must be a text")
    return value[:_MOST_NAME]


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadBody(f"{name}: must be true or false")
    return bool(value)


class TokensPerCharacter:
    """Learnt from what instances counted: no tokenizer here, and none is needed to tell a short prompt from a long."""

    _SHARE = 0.05

    def __init__(self) -> None:
        self._ratio = 1.0 / _CHARACTERS_PER_TOKEN

    def tokens(self, body: Body) -> int:
        if body.prompt_tokens is not None:
            return body.prompt_tokens
        return max(1, round(body.prompt_characters * self._ratio))

    def learn(self, body: Body, prompt_tokens: int) -> None:
        if body.prompt_tokens is None and body.prompt_characters > 0 and prompt_tokens > 0:
            seen = min(2.0, prompt_tokens / body.prompt_characters)
            self._ratio += self._SHARE * (seen - self._ratio)
