"""Streamed text joined is the text decoded at once, cut at the first stop string."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_wrappers.serving.errors import BadRequest
from job_wrappers.serving.requests.output import FinishReason
from job_wrappers.serving.requests.params import SamplingParams
from job_wrappers.serving.text.detokenise import Detokeniser
from job_wrappers.serving.text.output_processor import ChoiceText
from job_wrappers.serving.text.stops import StopStrings


def byte_decode(tokens: Sequence[int]) -> str:
    """A tokenizer whose tokens are bytes."""
    return bytes(tokens).decode("utf-8", errors="replace")


@given(st.text(max_size=40), st.text(max_size=5))
def test_bytes_that_come_one_by_one_become_the_whole_text(text: str, prompt: str) -> None:
    detokeniser = Detokeniser(byte_decode, list(prompt.encode()))
    pieces = [detokeniser.add(token) for token in text.encode()]
    assert "".join(pieces) + detokeniser.flush() == text
    assert not any("\ufffd" in piece for piece in pieces) or "\ufffd" in text


@given(st.lists(st.text("ab", max_size=4), max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
       st.booleans())  # fmt: skip
def test_stop_strings_cut_the_same_place_however_the_text_is_split(
    pieces: list[str], stops: list[str], include: bool
) -> None:
    whole = "".join(pieces)
    splitter = StopStrings(stops, include=include)
    out = "".join(splitter.add(piece) for piece in pieces)
    if splitter.found is None:
        out += splitter.flush()
    ends = [(whole.find(s) + len(s), -len(s), s) for s in stops if s in whole]
    if not ends:
        assert (out, splitter.found) == (whole, None)
        return
    end, _, stop = min(ends)
    assert splitter.found == stop
    assert out == (whole[:end] if include else whole[: end - len(stop)])


@given(st.text("abé🔋", max_size=30), st.lists(st.text("abé🔋", min_size=1, max_size=3), max_size=3), st.booleans())
def test_a_choice_says_the_whole_text_up_to_its_stop_string(text: str, stops: list[str], include: bool) -> None:
    tokens = text.encode()
    params = SamplingParams(max_tokens=max(1, len(tokens)), stop=tuple(stops), include_stop=include)
    out, reason = run(text, params)
    ends = [(text.find(s) + len(s), -len(s), s) for s in stops if s in text]
    if ends:
        end, _, stop = min(ends)
        assert (out, reason) == (text[:end] if include else text[: end - len(stop)], FinishReason.STOP)
    else:
        assert (out, reason) == (text, FinishReason.LENGTH if text else None)


def test_too_many_stop_strings_are_refused() -> None:
    with pytest.raises(BadRequest, match="stop"):
        SamplingParams(stop=("x",) * 17)


def run(text: str, params: SamplingParams, *, eos: set[int] = frozenset()) -> tuple[str, FinishReason | None]:  # type: ignore[assignment]
    choice = ChoiceText(params, decode=byte_decode, eos=eos, prompt=[])
    out = ""
    for i, token in enumerate(text.encode()):
        piece = choice.add(token, full_length=i + 1 >= params.max_tokens)
        out += piece.text
        if piece.finish_reason is not None:
            return out, piece.finish_reason
    return out, None


@pytest.mark.parametrize(
    ("params", "eos", "text", "reason"),
    [
        pytest.param(SamplingParams(max_tokens=3), set(), "abc", FinishReason.LENGTH, id="length"),
        pytest.param(SamplingParams(max_tokens=9), {ord("d")}, "abc", FinishReason.STOP, id="end-token"),
        pytest.param(
            SamplingParams(max_tokens=9, ignore_eos=True), {ord("d")}, "abcdefghi", FinishReason.LENGTH, id="ignored"
        ),
        pytest.param(SamplingParams(max_tokens=9, stop=("ef",)), set(), "abcd", FinishReason.STOP, id="stop-string"),
        pytest.param(
            SamplingParams(max_tokens=9, stop_token_ids=frozenset({ord("b")})),
            set(),
            "a",
            FinishReason.STOP,
            id="token",
        ),
        pytest.param(SamplingParams(max_tokens=5, stop=("efx",)), set(), "abcde", FinishReason.LENGTH, id="held-back"),
    ],
)
def test_a_choice_ends_where_it_should(params: SamplingParams, eos: set[int], text: str, reason: FinishReason) -> None:
    assert run("abcdefghijkl", params, eos=eos) == (text, reason)


def test_without_a_tokenizer_tokens_end_a_choice_and_there_is_no_text() -> None:
    choice = ChoiceText(SamplingParams(max_tokens=4), decode=None, eos={7}, prompt=[])
    assert choice.add(3, full_length=False).finish_reason is None
    assert choice.add(7, full_length=False).finish_reason is FinishReason.STOP
