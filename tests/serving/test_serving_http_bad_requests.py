"""Requests that are wrong in one way or several: 4xx with a message, and the server goes on."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving.fake_engine import FakeEngine
from tests.serving.http_server import http_server

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with http_server(FakeEngine()) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def texts(most: int = 8) -> st.SearchStrategy[str]:
    return st.text(max_size=most)


def numbers() -> st.SearchStrategy[Any]:
    return st.integers(-(10**400), 10**400) | st.floats(allow_nan=True, allow_infinity=True)


def outside(low: float, high: float) -> st.SearchStrategy[Any]:
    return numbers().filter(lambda value: not low <= value <= high)


ANYTHING = st.recursive(
    st.none() | st.booleans() | numbers() | texts(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(4), inner, max_size=2),
    max_leaves=6,
)


def but(*kinds: type) -> st.SearchStrategy[Any]:
    """Values of another type than these; null counts as not given, so it is none of them."""
    return ANYTHING.filter(lambda value: value is not None and type(value) not in kinds)


NUMBER, WHOLE = but(int, float), but(int)
LEAST = math.nextafter(0.0, 1.0)
"""Of the numbers above 0."""

WRONG: dict[str, st.SearchStrategy[Any]] = {
    "model": but(str) | texts().filter(lambda name: name not in ("chat", "large", "small")),
    "max_tokens": WHOLE | st.integers(-(10**30), 0),
    "temperature": NUMBER | outside(0, 100),
    "top_p": NUMBER | outside(LEAST, 1),
    "top_k": WHOLE | st.integers(-(10**30), -2),
    "min_p": NUMBER | outside(0, 1),
    "repetition_penalty": NUMBER | outside(LEAST, 100),
    "presence_penalty": NUMBER | outside(-2, 2),
    "frequency_penalty": NUMBER | outside(-2, 2),
    "n": WHOLE | st.integers(-(10**30), 0) | st.integers(129, 10**30),
    "seed": WHOLE | st.integers(2**63, 10**30),
    "stop": but(str, list) | st.just([""]) | st.lists(but(str), min_size=1, max_size=2) | st.just(["a"] * 99),
    "stop_token_ids": but(list) | st.lists(but(int), min_size=1, max_size=2),
    "stream": but(bool),
    "stream_options": but(dict) | st.just({"include_usage": 1}) | st.just({"include_usage": True}),
    "ignore_eos": but(bool),
    "priority": but(str) | texts().filter(lambda name: name.lower() not in ("interactive", "batch")),
    "deadline_ms": NUMBER | outside(LEAST, sys.float_info.max),
    "user": but(str) | st.just("\ud800"),
    "cache_salt": but(str) | st.just("\ud800"),
    "tools": st.just([{"type": "function"}]),
    "response_format": st.just({"type": "json_object"}),
    "logit_bias": st.dictionaries(texts(2), numbers(), min_size=1, max_size=2),
}
WRONG_IN_COMPLETIONS = WRONG | {
    "prompt": st.none() | but(str, list) | st.just("") | st.just([]) | st.just("x" * 999) | st.just("\ud800")
    | st.lists(but(int, str, list), min_size=1, max_size=3) | st.just([1, "x"]) | st.just(["x"] * 65)
    | st.lists(st.integers(256, 10**30) | st.integers(-(10**30), -1), min_size=1, max_size=3),
    "logprobs": WHOLE | st.integers(21, 10**30) | st.integers(-(10**30), -1),
    "echo": st.just(True),
}  # fmt: skip
WRONG_IN_CHAT = WRONG | {
    "messages": st.none() | but(list) | st.just([]) | st.lists(ANYTHING, min_size=1, max_size=3)
    | st.builds(lambda role: [{"role": role, "content": "x"}], but(str))
    | st.builds(lambda content: [{"role": "user", "content": content}], but(str)),
    "logprobs": but(bool),
    "top_logprobs": st.integers(0, 99),
}  # fmt: skip
GOOD = {COMPLETIONS: {"prompt": "ab", "max_tokens": 1}, CHAT: {"messages": [{"role": "u", "content": "x"}]}}


def bad_bodies(path: str, wrong: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[tuple[str, Any]]:
    """A good body with one to three of its fields made wrong."""
    names = st.lists(st.sampled_from(sorted(wrong)), min_size=1, max_size=3, unique=True)
    spoilt = names.flatmap(lambda chosen: st.fixed_dictionaries({name: wrong[name] for name in chosen}))
    return spoilt.map(lambda fields: (path, GOOD[path] | fields))


BAD = bad_bodies(COMPLETIONS, WRONG_IN_COMPLETIONS) | bad_bodies(CHAT, WRONG_IN_CHAT)


@settings(max_examples=1000)
@given(bad=BAD)
def test_a_thousand_bad_requests_are_each_told_what_is_wrong(client: httpx.Client, bad: tuple[str, Any]) -> None:
    path, body = bad
    answer = client.post(path, content=json.dumps(body))
    assert 400 <= answer.status_code < 500, (body, answer.text)
    error = answer.json()["error"]
    assert error["message"]
    assert error["code"] == answer.status_code


@settings(max_examples=100)
@given(content=st.binary(max_size=30) | ANYTHING.filter(lambda v: not isinstance(v, dict)).map(lambda v: json.dumps(v)))
def test_what_is_no_object_is_refused(client: httpx.Client, content: bytes | str) -> None:
    assert client.post(COMPLETIONS, content=content).status_code == 400


def test_after_all_that_a_good_request_is_answered(client: httpx.Client) -> None:
    for path, body in GOOD.items():
        assert client.post(path, json=body).status_code == 200


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        pytest.param(b"{", 400, "not JSON", id="cut-short"),
        pytest.param(b"[" * 100_000, 400, "not JSON", id="nested-too-deep"),
        pytest.param(b'{"n": ' + b"9" * 5000 + b"}", 400, "not JSON", id="endless-number"),
        pytest.param(b'{"prompt": "\xff"}', 400, "not JSON", id="no-utf-8"),
        pytest.param(b'{"prompt": "' + b"x" * 1_000_000 + b'"}', 400, "1000000 tokens", id="1-MB-prompt"),
        pytest.param(b" " * 5_000_000, 413, "larger than", id="too-large"),
        pytest.param(b'{"model": "\\ud800"}', 400, "model: must be a text", id="half-a-character"),
    ],
)
def test_a_body_that_nobody_can_read_is_told_so(
    client: httpx.Client, content: bytes, status: int, message: str
) -> None:
    answer = client.post(COMPLETIONS, content=content)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


def test_a_body_that_comes_in_pieces_is_cut_off_at_the_limit(client: httpx.Client) -> None:
    answer = client.post(COMPLETIONS, content=(b" " * 100_000 for _ in range(60)))
    assert answer.status_code == 413
