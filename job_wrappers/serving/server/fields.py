"""Reads the fields of a JSON body: right type and range, or a BadRequest that names the field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from job_wrappers.serving.errors import BadRequest


class Fields:
    """Unknown fields are left alone, as OpenAI's own service does; `null` is as if the field were not there."""

    def __init__(self, body: object) -> None:
        if not isinstance(body, Mapping):
            raise BadRequest("the body must be a JSON object")
        self._body: Mapping[str, Any] = body

    def get(self, name: str) -> Any:
        return self._body.get(name)

    def text(self, name: str, default: str | None = None) -> str:
        value = self.get(name)
        if value is None and default is not None:
            return default
        if not _is_text(value):
            raise BadRequest(f"{name}: must be a text", parameter=name)
        return str(value)

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise BadRequest(f"{name}: must be true or false", parameter=name)
        return bool(value)

    def whole(self, name: str) -> int | None:
        value = self.get(name)
        if value is not None and not is_whole(value):
            raise BadRequest(f"{name}: must be a whole number", parameter=name)
        return None if value is None else int(value)

    def whole_or(self, name: str, default: int) -> int:
        value = self.whole(name)
        return default if value is None else value

    def number(self, name: str, default: float) -> float:
        value = self.get(name)
        if value is None:
            return default
        try:
            number = math.nan if isinstance(value, bool) or not isinstance(value, (int, float)) else float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise BadRequest(f"{name}: must be a number", parameter=name)
        return number

    def texts(self, name: str) -> tuple[str, ...]:
        """A text, or a list of them."""
        value = self.get(name)
        found = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(map(_is_text, found)):
            raise BadRequest(f"{name}: must be a text or a list of texts", parameter=name)
        return tuple(found)

    def tokens(self, name: str) -> frozenset[int]:
        value = self.get(name)
        found = [] if value is None else value
        if not isinstance(found, list) or not all(map(is_whole, found)):
            raise BadRequest(f"{name}: must be a list of tokens", parameter=name)
        return frozenset(found)

    def inner(self, name: str) -> Fields:
        value = self.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise BadRequest(f"{name}: must be an object", parameter=name)
        return Fields(value or {})


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    """JSON can name half a character ("\\ud800"), which no encoding can write."""
    if not isinstance(value, str):
        return False
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False
