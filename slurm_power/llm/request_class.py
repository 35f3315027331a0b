"""Request classes by how much is read and how much is written, as in DynamoLLM (arXiv 2408.00741)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

SMALL_PROMPT_TOKENS, MEDIUM_PROMPT_TOKENS = 256, 1024
SMALL_OUTPUT_TOKENS, MEDIUM_OUTPUT_TOKENS = 100, 350


class Size(IntEnum):
    SMALL = 0
    MEDIUM = 1
    LARGE = 2

    @property
    def letter(self) -> str:
        return self.name[0]


@dataclass(frozen=True, slots=True, order=True)
class RequestClass:
    prompt: Size
    output: Size

    @property
    def name(self) -> str:
        """SS, SM, SL, MS, MM, ML, LS, LM or LL: the prompt's letter first."""
        return self.prompt.letter + self.output.letter

    def holds(self, other: RequestClass) -> bool:
        """Whether a pool for this class may serve `other`: no smaller in either way."""
        return self.prompt >= other.prompt and self.output >= other.output


REQUEST_CLASSES = tuple(RequestClass(prompt, output) for prompt in Size for output in Size)


def prompt_size(tokens: int) -> Size:
    return _size(tokens, SMALL_PROMPT_TOKENS, MEDIUM_PROMPT_TOKENS)


def output_size(tokens: float) -> Size:
    return _size(tokens, SMALL_OUTPUT_TOKENS, MEDIUM_OUTPUT_TOKENS)


def request_class(*, prompt_tokens: int, output_tokens: float) -> RequestClass:
    return RequestClass(prompt_size(prompt_tokens), output_size(output_tokens))


def class_named(name: str) -> RequestClass:
    """Raise KeyError for an unknown name."""
    return {one.name: one for one in REQUEST_CLASSES}[name]


@dataclass(frozen=True, slots=True)
class Slo:
    """Deadlines. The defaults are assumptions: the paper's own table per class could not be verified."""

    ttft_s: Mapping[Size, float]  # time to the first token, by the prompt's size
    tbt_s: float  # time between two tokens


DEFAULT_SLO = Slo(ttft_s={Size.SMALL: 0.25, Size.MEDIUM: 0.4, Size.LARGE: 2.0}, tbt_s=0.1)


def _size(tokens: float, small: int, medium: int) -> Size:
    if tokens < small:
        return Size.SMALL
    return Size.MEDIUM if tokens < medium else Size.LARGE
