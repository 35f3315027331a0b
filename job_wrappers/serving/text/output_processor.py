"""What one choice hands out: text of its tokens, and whether it ends with them. Pure, but for the decoder handed in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from job_wrappers.serving.requests.output import FinishReason
from job_wrappers.serving.requests.params import SamplingParams
from job_wrappers.serving.text.detokenise import Decode, Detokeniser
from job_wrappers.serving.text.stops import StopStrings


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    finish_reason: FinishReason | None = None


class ChoiceText:
    """One choice's state. Without a decoder (`decode` None) there is no text: only tokens end it."""

    def __init__(
        self, params: SamplingParams, *, decode: Decode | None, eos: Collection[int], prompt: Sequence[int]
    ) -> None:
        self._ends = set(params.stop_token_ids) | (set() if params.ignore_eos else set(eos))
        self._text = None if decode is None else Detokeniser(decode, prompt)
        self._stops = StopStrings(params.stop, include=params.include_stop)

    def add(self, token_id: int, *, full_length: bool) -> Piece:
        """`full_length`: no token may follow this one. An end token is no text."""
        if token_id in self._ends:
            return Piece(self._rest(), FinishReason.STOP)
        text = "" if self._text is None else self._stops.add(self._text.add(token_id))
        if self._stops.found is not None:
            return Piece(text, FinishReason.STOP)
        if full_length:
            text += self._rest()
            return Piece(text, FinishReason.STOP if self._stops.found is not None else FinishReason.LENGTH)
        return Piece(text)

    def _rest(self) -> str:
        if self._text is None:
            return ""
        text = self._stops.add(self._text.flush())
        return text + self._stops.flush()
