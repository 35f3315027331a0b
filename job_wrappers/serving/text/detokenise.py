"""Text of tokens that come one by one. A character whose bytes are not all there yet stays back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]

_UNFINISHED = "\ufffd"

_CONTEXT = 8
"""Tokens of the prompt that are decoded along: the first token's space depends on what stands before it."""

_LONGEST_CHARACTER = 4
"""Bytes, each of which may be a token."""

_WINDOW = 24
"""Tokens decoded at a time before the beginning moves on."""


class Detokeniser:
    """Decodes a window of the last tokens and hands out what its text has more than before. The window begins where a
    character begins and never with the newest token, so that spaces between words come out as in the whole.

    While the text ends with an unfinished character nothing is handed out, not even what seems complete before it: byte
    tokens of some tokenizers are text only if all that stand in a row are.
    """

    def __init__(self, decode: Decode, prompt: Sequence[int] = ()) -> None:
        self._decode = decode
        self._window, self._given = _end_of(prompt, decode)
        """`_given`: the window's text that is handed out already, or the prompt's."""

        self._whole = len(self._window)
        """Tokens of the window whose text was complete when text was last handed out."""

    def add(self, token: int) -> str:
        """Text that became final with this token."""
        self._window.append(token)
        text = self._decode(self._window)
        if text.endswith(_UNFINISHED):
            return ""
        new = self._hand_out(text)
        if new:
            self._move_on()
        return new

    def flush(self) -> str:
        """What was held back, as it is."""
        return self._hand_out(self._decode(self._window)) if self._window else ""

    def _hand_out(self, text: str) -> str:
        given = len(self._given)
        if not text.startswith(self._given):  # the prompt ended within a character, or bytes make no text after all
            given = _common(text, self._given)
        if len(text) > given:
            self._given = text
        return text[given:]

    def _move_on(self) -> None:
        """The text is complete here, and was behind `_whole` tokens."""
        if len(self._window) > _WINDOW:
            del self._window[: self._whole]
            self._given = self._decode(self._window)
        self._whole = len(self._window)


def _end_of(prompt: Sequence[int], decode: Decode) -> tuple[list[int], str]:
    """The last tokens, and their text; from the beginning of a character on."""
    tokens: list[int] = []
    text = ""
    for count in range(_CONTEXT, _CONTEXT + _LONGEST_CHARACTER):
        tokens = list(prompt[-count:])
        text = decode(tokens) if tokens else ""
        if not text.startswith(_UNFINISHED):
            break
    return tokens, text


def _common(one: str, other: str) -> int:
    """Characters that both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
