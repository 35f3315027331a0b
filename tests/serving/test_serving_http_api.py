"""The shapes of the API over an engine without a model: answers, streams, errors, people who leave, steering."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from job_wrappers.serving.errors import NotServing, QueueFull, ServingError
from job_wrappers.serving.requests.output import FinishReason
from job_wrappers.serving.requests.request import Priority
from tests.serving.fake_engine import JOULES, FakeEngine, until
from tests.serving.http_server import TOKEN, http_server

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HELLO = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
KEY = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[FakeEngine, httpx.Client]]:
    engine = FakeEngine()
    with http_server(engine) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield engine, client


@pytest.fixture
def engine(server: tuple[FakeEngine, httpx.Client]) -> FakeEngine:
    """As new."""
    server[0].reset()
    return server[0]


@pytest.fixture
def client(server: tuple[FakeEngine, httpx.Client], engine: FakeEngine) -> httpx.Client:
    return server[1]


def events(response: httpx.Response) -> list[Any]:
    """Of a whole stream, without its last."""
    parts = response.text.split("\n\n")
    assert parts[-2:] == ["data: [DONE]", ""]
    assert all(part.startswith("data: ") for part in parts[:-2])
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]


def test_a_completion_has_the_shape_of_openais(client: httpx.Client) -> None:
    answer = client.post(COMPLETIONS, json={"model": "chat", "prompt": "abc", "max_tokens": 5}).json()
    assert answer["object"] == "text_completion"
    assert answer["model"] == "large"
    assert answer["choices"] == [{"index": 0, "text": "abcab", "logprobs": None, "finish_reason": "length"}]
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 5, 8)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 1}
    assert usage["energy_joules"] == JOULES


def test_a_chat_has_the_shape_of_openais(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=HELLO).json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "user"}


def test_a_stream_says_role_then_text_then_reason_then_usage(client: httpx.Client) -> None:
    response = client.post(CHAT, json={**HELLO, "stream": True, "stream_options": {"include_usage": True}})
    assert response.headers["content-type"].startswith("text/event-stream")
    found = events(response)
    deltas = [part["choices"][0]["delta"] for part in found[:-1]]
    assert deltas == [{"role": "assistant", "content": "u"}, {"content": "s"}, {"content": "e"}, {"content": "r"}]
    assert [part["choices"][0]["finish_reason"] for part in found[:-1]] == [None, None, None, "length"]
    assert (found[-1]["choices"], found[-1]["usage"]["completion_tokens"]) == ([], 4)
    assert len({part["id"] for part in found}) == 1
    assert {part["object"] for part in found} == {"chat.completion.chunk"}


def test_a_stream_without_the_wish_has_no_usage(client: httpx.Client) -> None:
    found = events(client.post(COMPLETIONS, json={"prompt": "ab", "max_tokens": 2, "stream": True}))
    assert [part["choices"][0]["text"] for part in found] == ["a", "b"]
    assert not any("usage" in part for part in found)


def test_choices_of_several_prompts_are_numbered_through(client: httpx.Client) -> None:
    body = {"prompt": ["ab", "xy"], "n": 2, "max_tokens": 3}
    answer = client.post(COMPLETIONS, json=body).json()
    assert [(choice["index"], choice["text"]) for choice in answer["choices"]] == [
        (0, "aba"), (1, "bab"), (2, "xyx"), (3, "yxy")]  # fmt: skip
    assert answer["usage"]["energy_joules"] == 2 * JOULES
    streamed = dict.fromkeys(range(4), "")
    for part in events(client.post(COMPLETIONS, json={**body, "stream": True})):
        streamed[part["choices"][0]["index"]] += part["choices"][0]["text"]
    assert streamed == {choice["index"]: choice["text"] for choice in answer["choices"]}


def test_logprobs_say_the_chosen_token_and_where_it_begins(client: httpx.Client) -> None:
    body = {"prompt": [104, 233], "logprobs": 1, "max_tokens": 3}
    wanted = {
        "tokens": ["h", "é", "h"],
        "token_logprobs": [-9999.0] * 3,
        "top_logprobs": [{"h": -0.5}, {"é": -0.5}, {"h": -0.5}],
        "text_offset": [0, 1, 2],
    }
    assert client.post(COMPLETIONS, json=body).json()["choices"][0]["logprobs"] == wanted
    parts = events(client.post(COMPLETIONS, json={**body, "stream": True}))
    assert [part["choices"][0]["logprobs"]["text_offset"] for part in parts] == [[0], [1], [2]]
    answer = client.post(CHAT, json={**HELLO, "logprobs": True, "top_logprobs": 1}).json()
    first = answer["choices"][0]["logprobs"]["content"][0]
    assert first == {"token": "u", "logprob": -9999.0, "bytes": [117],
                     "top_logprobs": [{"token": "u", "logprob": -0.5, "bytes": [117]}]}  # fmt: skip


def test_what_a_body_asks_for_reaches_the_engine(engine: FakeEngine, client: httpx.Client) -> None:
    body = {"prompt": [1, 2], "max_tokens": 3, "temperature": 0.5, "top_k": -1, "min_p": 0.1, "stop": "x", "seed": 7,
            "repetition_penalty": 1.5, "ignore_eos": True, "priority": "batch", "deadline_ms": 60_000, "user": "ann",
            "cache_salt": "s", "unknown": {"a": 1}, "top_p": None}  # fmt: skip
    assert client.post(COMPLETIONS, json=body).status_code == 200
    [request] = engine.taken
    assert request.prompt_token_ids == (1, 2)
    assert (request.model, request.caller, request.cache_salt) == ("large", "ann", "s")
    assert request.priority is Priority.BATCH
    assert request.deadline_s is not None
    assert request.deadline_s - request.arrived_at_s == pytest.approx(60.0)
    params = request.params
    assert (params.temperature, params.top_k, params.top_p, params.min_p) == (0.5, 0, 1.0, 0.1)
    assert (params.stop, params.seed, params.repetition_penalty, params.ignore_eos) == (("x",), 7, 1.5, True)


def test_a_chat_without_a_length_goes_on_to_the_models(engine: FakeEngine, client: httpx.Client) -> None:
    client.post(CHAT, json={"messages": HELLO["messages"]})
    client.post(CHAT, json={**HELLO, "max_completion_tokens": 2})
    client.post(COMPLETIONS, json={"prompt": "a"})
    assert [request.params.max_tokens for request in engine.taken] == [64, 2, 16]
    assert engine.taken[0].caller == "127.0.0.1"


def test_a_full_queue_says_when_to_come_again(engine: FakeEngine, client: httpx.Client) -> None:
    engine.refuse = [QueueFull("9 requests are waiting", retry_after_s=7.4)]
    answer = client.post(CHAT, json={**HELLO, "stream": True})
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert answer.json()["error"] == {
        "message": "9 requests are waiting", "type": "rate_limit_error", "param": None, "code": 429}  # fmt: skip


def test_one_refused_prompt_of_several_leaves_none_running(engine: FakeEngine, client: httpx.Client) -> None:
    engine.refuse = [QueueFull("full")]
    assert client.post(COMPLETIONS, json={"prompt": ["a", "b"]}).status_code == 429
    assert {request.request_id for request in engine.taken} <= set(engine.cancelled)


def test_a_model_that_changes_meanwhile_is_asked_anew(engine: FakeEngine, client: httpx.Client) -> None:
    engine.refuse = [NotServing("not active any more", retry_after_s=0.0)]
    engine.active_name = "small"
    answer = client.post(COMPLETIONS, json={"model": "large", "prompt": "a"})
    assert (answer.status_code, answer.json()["model"]) == (200, "small")
    engine.refuse = [NotServing("not active any more", retry_after_s=0.0)] * 9
    assert client.post(COMPLETIONS, json={"prompt": "a"}).status_code == 503


def test_an_engine_that_has_ended_is_a_503(engine: FakeEngine, client: httpx.Client) -> None:
    engine.refuse = [ServingError("the engine has ended")]
    answer = client.post(COMPLETIONS, json={"prompt": "a"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "the engine has ended")


@pytest.mark.parametrize(
    ("reason", "status"),
    [(FinishReason.DEADLINE, 408), (FinishReason.ERROR, 500), (FinishReason.CANCELLED, 503)],
)
def test_what_ends_badly_is_an_error_whole_or_streamed(
    engine: FakeEngine, client: httpx.Client, reason: FinishReason, status: int
) -> None:
    engine.ends_with = reason
    assert client.post(COMPLETIONS, json={"prompt": "a", "max_tokens": 3}).status_code == status
    found = events(client.post(COMPLETIONS, json={"prompt": "a", "max_tokens": 3, "stream": True}))
    assert [part["choices"][0]["text"] for part in found[:-1]] == ["a", "a"]
    assert found[-1]["error"]["code"] == status


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_cancels(engine: FakeEngine, client: httpx.Client, stream: bool) -> None:
    engine.hold()
    body = {"prompt": ["abc", "def"], "max_tokens": 9, "stream": stream}
    with pytest.raises(httpx.ReadTimeout):
        client.post(COMPLETIONS, json=body, timeout=0.3)
    # Those of the test before may be cancelled only now.
    assert until(lambda: {request.request_id for request in engine.taken} <= set(engine.cancelled))
    assert len(engine.taken) == 2


def test_what_has_ended_is_not_cancelled(engine: FakeEngine, client: httpx.Client) -> None:
    for stream in (True, False):
        client.post(COMPLETIONS, json={"prompt": "a", "stream": stream})
    assert engine.cancelled == []


def test_models_are_listed_with_what_they_do(engine: FakeEngine, client: httpx.Client) -> None:
    listed = {model["id"]: model for model in client.get("/v1/models").json()["data"]}
    assert {name: model["state"] for name, model in listed.items()} == {
        "chat": "active", "large": "active", "small": "asleep"}  # fmt: skip
    assert (listed["chat"]["max_model_len"], listed["large"]["max_model_len"]) == (64, 64)
    assert client.get("/v1/models/large").json() == listed["large"]
    assert client.get("/v1/models/huge").status_code == 404
    engine.asleep = True
    assert len(client.get("/v1/models").json()["data"]) == 3
    assert client.post(COMPLETIONS, json={"prompt": "a"}).status_code == 503


def test_an_unknown_path_or_method_is_told_as_openai_would(client: httpx.Client) -> None:
    assert client.get("/v2").json()["error"]["type"] == "not_found_error"
    assert client.get(COMPLETIONS).status_code == 405
    assert "GET /v1/completions" in client.get(COMPLETIONS).json()["error"]["message"]


def test_a_mistake_of_ours_is_a_500_that_says_nothing_of_it(engine: FakeEngine, client: httpx.Client) -> None:
    engine.refuse = [ZeroDivisionError("secret")]  # type: ignore[list-item]
    answer = client.post(COMPLETIONS, json={"prompt": "a"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert "secret" not in answer.text
    assert httpx.post(client.base_url.join(COMPLETIONS), json={"prompt": "a"}).status_code == 200


def test_health_follows_the_engine(engine: FakeEngine, client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    client.post("/admin/drain", headers=KEY)
    assert (client.get("/health").status_code, client.get("/health").headers["Retry-After"]) == (503, "5")
    refused = client.post(COMPLETIONS, json={"prompt": "a"})
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")


def test_metrics_are_what_prometheus_reads() -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    with http_server(FakeEngine()) as url, httpx.Client(base_url=url, timeout=30) as client:
        client.post(COMPLETIONS, json={"prompt": "abc", "max_tokens": 5, "stream": True})
        client.post(COMPLETIONS, json={"prompt": "abc", "max_tokens": 2, "priority": "batch"})
        text = client.get("/metrics").text
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    assert {"vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"} <= families.keys()
    assert {"vllm:generation_tokens", "vllm:prompt_tokens", "vllm:request_success"} <= families.keys()
    assert families["vllm:request_success"].samples[0].labels["finished_reason"] == "stop"

    def count(name: str, priority: str) -> float:
        return next(s.value for s in families[name].samples
                    if s.name == f"{name}_count" and s.labels["priority"] == priority)  # fmt: skip

    assert count("vllm:time_to_first_token_seconds", "interactive") == 1
    assert count("vllm:inter_token_latency_seconds", "interactive") == 4
    assert count("vllm:inter_token_latency_seconds", "batch") == 1
    first = families["vllm:time_to_first_token_seconds"].samples
    below = {s.labels["le"]: s.value for s in first if "le" in s.labels and s.labels["priority"] == "interactive"}
    assert (below["0.1"], below["0.25"], below["+Inf"]) == (0, 1, 1)
    assert families["slurm_power_least_slack_seconds"].samples[0].value == 1.5
    assert "slurm_power_watts" not in families


def test_steering_needs_the_token(client: httpx.Client) -> None:
    assert client.get("/admin/status").status_code == 403
    assert client.post("/admin/drain", headers={"Authorization": "Bearer wrong"}).status_code == 403
    assert client.get("/admin/status", headers=KEY).json()["active"] == "large"


def test_steering_answers_with_the_status_afterwards(engine: FakeEngine, client: httpx.Client) -> None:
    def steer(action: str, body: Any = None) -> httpx.Response:
        return client.post(f"/admin/{action}", headers=KEY, json=body)

    status = steer("limits", {"max_num_seqs": 3}).json()
    assert status["limits"]["max_num_seqs"] == 3
    assert status["last_steered"] == {"what": "max_num_seqs 3", "effect_s": 0.25}
    assert steer("model", {"model": "small"}).json()["active"] == "small"
    assert steer("sleep").status_code == 200
    assert engine.asleep
    assert steer("wake").status_code == 200
    assert not engine.asleep


@pytest.mark.parametrize(
    ("action", "body", "status", "message"),
    [
        ("limits", {}, 400, "give max_num_seqs"),
        ("limits", {"max_num_seqs": 0}, 400, "max_num_seqs = 0"),
        ("limits", {"max_num_seqs": "3"}, 400, "max_num_seqs: must be a whole number"),
        ("limits", [], 400, "must be a JSON object"),
        ("model", {}, 400, "model: must be a text"),
        ("model", {"model": "huge"}, 404, "no model huge"),
        ("clock", {"sm_clock_mhz": -1}, 400, "sm_clock_mhz = -1"),
        ("clock", {"sm_clock_mhz": 900}, 409, "no clock can be set here"),
        ("dance", {}, 404, "no such action"),
    ],
)
def test_steering_that_cannot_be_is_told(
    client: httpx.Client, action: str, body: Any, status: int, message: str
) -> None:
    answer = client.post(f"/admin/{action}", headers=KEY, json=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]
