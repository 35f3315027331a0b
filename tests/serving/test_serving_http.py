"""The server as its clients see it: OpenAI's own client, requests as of curl, people who leave or send nonsense."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
openai = pytest.importorskip("openai")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from tests.serving.fake_engine import until  # noqa: E402
from tests.serving.served import TOKEN, Served, served  # noqa: E402
from tests.serving.tiny_models import oracle_greedy, tiny_folder  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("serving-http")]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(tiny_folder("llama"), tiny_folder("qwen3"), max_waiting=64) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Served) -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def post(server: Served, path: str, body: Any, **options: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, timeout=60, **options)


def steer(server: Served, action: str, body: Any) -> httpx.Response:
    return post(server, f"/admin/{action}", body, headers={"Authorization": f"Bearer {TOKEN}"})


def test_a_greedy_completion_is_that_of_transformers(server: Served) -> None:
    prompt = [5, 9, 17, 33, 101]
    body = {"model": "chat", "prompt": prompt, "max_tokens": 10, "temperature": 0, "logprobs": 0}
    answer = post(server, "/v1/completions", body).json()
    text = server.host.engines["m"].text
    assert text is not None
    wanted = oracle_greedy(tiny_folder("llama"), prompt, new_tokens=10)
    assert answer["choices"][0]["text"] == text.decode([*prompt, *wanted])[len(text.decode(prompt)) :]
    assert answer["usage"]["completion_tokens"] == len(wanted)
    assert answer["usage"]["energy_joules"] is None


def test_openais_client_chats_and_streams_the_same(client: Any) -> None:
    messages = [{"role": "user", "content": "What is power?"}]
    options = {"model": "chat", "messages": messages, "max_tokens": 12, "temperature": 0.7, "seed": 3}
    whole = client.chat.completions.create(**options)
    parts = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    streamed = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert streamed == whole.choices[0].message.content
    assert parts[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert whole.choices[0].finish_reason in ("stop", "length")


def test_several_choices_and_several_prompts_come_in_order(client: Any) -> None:
    answer = client.completions.create(
        model="chat", prompt=["one", "two"], n=2, max_tokens=4, temperature=1.0, seed=1, logprobs=2
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert all(len(choice.logprobs.top_logprobs[0]) in (2, 3) for choice in answer.choices)  # the chosen one too


def test_models_health_and_metrics_answer(server: Served, client: Any) -> None:
    assert {model.id for model in client.models.list()} == {"chat", "m", "s"}
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}
    metrics = httpx.get(f"{server.url}/metrics").text
    for name in ("vllm:num_requests_running", "vllm:kv_cache_usage_perc", "slurm_power_max_num_seqs"):
        assert f"\n{name}{{" in metrics


def test_a_client_that_leaves_cancels_its_request(server: Served) -> None:
    body = {"model": "chat", "prompt": [5, 6], "max_tokens": 250, "stream": True, "ignore_eos": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as response:
        next(response.iter_lines())
    assert until(lambda: server.host.unfinished() == 0)
    assert server.host.figures.finished.get("cancelled", 0) >= 1


def test_a_deadline_that_passes_is_said(server: Served) -> None:
    answer = post(server, "/v1/completions", {"model": "chat", "prompt": [5], "max_tokens": 200, "deadline_ms": 1,
                                              "ignore_eos": True})  # fmt: skip
    assert answer.status_code == 408
    assert "deadline_ms" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/completions", {"model": "gpt-9", "prompt": "x"}, 404, "'gpt-9' is not served here"),
        ("/v1/completions", {"prompt": "x", "max_tokens": -1}, 400, "max_tokens = -1"),
        ("/v1/completions", {"prompt": "x", "temperature": "hot"}, 400, "temperature: must be a number"),
        ("/v1/completions", {"prompt": "x", "top_p": 0}, 400, "top_p = 0.0"),
        ("/v1/completions", {"prompt": [999999]}, 400, "no token 999999"),
        ("/v1/completions", {"prompt": {}}, 400, "prompt: must be a text"),
        ("/v1/completions", {"prompt": "x" * 1_000_000}, 400, "1000000 characters"),
        ("/v1/completions", {"prompt": [5] * 300}, 400, "300 tokens"),
        ("/v1/completions", {"prompt": "x", "logit_bias": {"1": 2}}, 400, "logit_bias is not supported"),
        ("/v1/completions", {"prompt": "x", "n": 1000}, 400, "n = 1000"),
        ("/v1/completions", [1], 400, "must be a JSON object"),
        ("/v1/chat/completions", {"messages": "hello"}, 400, "messages: must be a list"),
        ("/v1/chat/completions", {"messages": [{"role": 3, "content": "x"}]}, 400, "role must be a text"),
        ("/v1/completions", {"prompt": "x", "priority": "vip"}, 400, "priority = vip"),
    ],
)
def test_a_bad_request_is_told_what_where_and_why(
    server: Served, path: str, body: Any, status: int, message: str
) -> None:
    answer = post(server, path, body)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


def test_what_is_no_json_or_too_large_is_refused(server: Served) -> None:
    broken = httpx.post(f"{server.url}/v1/completions", content=b"{", timeout=60)
    assert broken.status_code == 400
    large = httpx.post(f"{server.url}/v1/completions", content=b" " * 5_000_000, timeout=60)
    assert large.status_code == 413


EXTREME = st.fixed_dictionaries(
    {"prompt": st.lists(st.integers(0, 255), min_size=1, max_size=40), "max_tokens": st.integers(1, 3)},
    optional={
        "temperature": st.sampled_from([0, 1e-300, 1e-30, 1e-5, 0.1, 1, 100]),
        "top_k": st.sampled_from([-1, 0, 1, 5, 10**30]),
        "top_p": st.sampled_from([1e-300, 1e-9, 0.5, 1]),
        "min_p": st.sampled_from([0, 1e-300, 0.5, 1]),
        "repetition_penalty": st.sampled_from([1e-300, 0.5, 1, 100]),
        "presence_penalty": st.sampled_from([-2, 0, 2]),
        "frequency_penalty": st.sampled_from([-2, 0, 2]),
        "seed": st.sampled_from([-(2**63), -1, 0, 2**63 - 1]),
        "n": st.sampled_from([1, 2, 9]),
        "logprobs": st.sampled_from([0, 1, 20]),
        "stop": st.lists(st.text(min_size=1, max_size=4), max_size=3),
        "stop_token_ids": st.lists(st.integers(-(10**30), 10**30), max_size=3),
        "deadline_ms": st.sampled_from([1e-300, 1, 1e12]),
        "cache_salt": st.text(max_size=4),
        "stream": st.booleans(),
    },
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=EXTREME)
def test_values_at_the_edge_of_what_is_allowed_do_no_harm(server: Served, body: dict[str, Any]) -> None:
    """Answered, or too late; with numbers that are none, refused. The engine's own checks run after each iteration."""
    answer = post(server, "/v1/completions", body)
    text = answer.text
    assert answer.status_code in (200, 408) or "not numbers" in text, text
    assert server.host.failure is None


def test_steering_needs_the_token(server: Served) -> None:
    assert post(server, "/admin/limits", {"max_num_seqs": 2}).status_code == 403
    assert httpx.get(f"{server.url}/admin/status").status_code == 403
    assert steer(server, "dance", {}).status_code == 404


def test_the_batch_size_changes_under_load_without_a_failed_request(server: Served) -> None:
    body = {"model": "chat", "prompt": [7, 8, 9], "max_tokens": 40, "ignore_eos": True, "temperature": 0}
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(post, server, "/v1/completions", body) for _ in range(24)]
        halved = steer(server, "limits", {"max_num_seqs": 2}).json()
        restored = steer(server, "limits", {"max_num_seqs": 8}).json()
        texts = {answer.result().json()["choices"][0]["text"] for answer in answers}
    assert (halved["limits"]["max_num_seqs"], restored["limits"]["max_num_seqs"]) == (2, 8)
    assert len(texts) == 1


def test_the_model_changes_under_load_without_a_failed_request(server: Served) -> None:
    """Four clients ask on and on; the switch back waits until the other model has answered one."""
    body = {"model": "chat", "prompt": [7, 8, 9], "max_tokens": 30, "ignore_eos": True, "temperature": 0}
    found: list[httpx.Response] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            found.append(post(server, "/v1/completions", body))

    def answered_by(name: str, *, after: int = 0) -> bool:
        return any(answer.status_code != 200 or answer.json()["model"] == name for answer in found[after:])

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(ask) for _ in range(4)]
        try:
            assert until(lambda: answered_by("m"))
            small = steer(server, "model", {"model": "s"})
            assert small.json().get("active") == "s", small.text
            assert until(lambda: answered_by("s"))
            large = steer(server, "model", {"model": "m"})
            assert large.json().get("active") == "m", large.text
            so_far = len(found)
            assert until(lambda: answered_by("m", after=so_far))
        finally:
            over.set()
        for client in clients:
            client.result()
    assert {answer.status_code for answer in found} == {200}
    assert large.json()["switch_s"] > 0


def test_an_unknown_model_cannot_be_switched_to(server: Served) -> None:
    answer = steer(server, "model", {"model": "huge"})
    assert answer.status_code == 404
    assert "no model huge" in answer.json()["error"]["message"]


def test_a_full_queue_says_when_to_come_again() -> None:
    with served(tiny_folder("llama"), max_waiting=1, max_num_seqs=1) as small:
        body = {"model": "chat", "prompt": [7], "max_tokens": 100, "ignore_eos": True}
        with ThreadPoolExecutor(12) as pool:
            answers = [a.result() for a in [pool.submit(post, small, "/v1/completions", body) for _ in range(12)]]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        assert {answer.status_code for answer in answers} == {200, 429}


def test_a_draining_server_refuses_and_ends_what_runs(server: Served) -> None:
    with served(tiny_folder("llama")) as own:
        assert steer(own, "drain", {}).status_code == 200
        answer = post(own, "/v1/completions", {"model": "chat", "prompt": [5]})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert httpx.get(f"{own.url}/health").status_code == 503
