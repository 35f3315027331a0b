"""The router passes requests and answers through, retries what no client has seen yet, and refuses in clear words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

from slurm_power.adapters.api_keys_file import ApiKeys
from slurm_power.llm.request_class import REQUEST_CLASSES, Size, Slo
from slurm_power.testing.stub_instance import StubBehaviour, StubInstance
from slurm_power.web.router_server import new_event_loop
from tests.web.router_site import RouterSite, router_site

SS, LL = REQUEST_CLASSES[0], REQUEST_CLASSES[-1]
KEY = "0123456789abcdef-key"


def run(test: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:  # the one that slurm-power-pool runs on
        runner.run(asyncio.wait_for(test, 60.0))


async def stub(**behaviour: Any) -> StubInstance:
    made = StubInstance(StubBehaviour(**behaviour))
    await made.start()
    return made


def body(tokens: int = 4, **more: Any) -> dict[str, Any]:
    return {"model": "chat", "prompt": [1, 2, 3], "max_tokens": tokens, **more}


async def drained(site: RouterSite) -> None:
    """Every place was given back."""
    for _ in range(200):
        if all(one.requests == one.held_tokens == one.prefill_tokens == 0 for one in site.desk.roster):
            break
        await asyncio.sleep(0.01)
    assert [(one.requests, one.held_tokens, one.prefill_tokens) for one in site.desk.roster] == [(0, 0, 0)] * len(
        site.desk.roster
    )
    assert site.desk.waiting == 0


def test_a_whole_answer_and_a_stream_pass_through() -> None:
    async def test() -> None:
        async with router_site() as site, site.client() as client:
            made = await stub()
            made.keep_bodies = True
            site.add(made)
            answer = await client.post("/v1/completions", json=body(extra="kept"))
            assert answer.status_code == 200
            assert answer.json()["choices"][0]["text"] == "token " * 4
            assert made.bodies == [body(extra="kept")]
            async with client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as stream:
                assert stream.headers["content-type"] == "text/event-stream"
                events = [line async for line in stream.aiter_lines() if line]
            assert events[-1] == "data: [DONE]"
            assert len(events) == 5
            await drained(site)

    run(test())


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, **more}


def test_tokens_come_as_they_are_made_not_at_the_end() -> None:
    async def test() -> None:
        async with router_site() as site, site.client() as client:
            made = await stub(between_tokens_s=30.0)
            site.add(made)
            async with client.stream("POST", "/v1/completions", json=body(stream=True)) as stream:
                async for line in stream.aiter_lines():
                    assert "token" in line
                    break
            assert made.answered == 0

    run(test())


def test_lengths_are_learnt_from_answers_of_either_kind() -> None:
    async def test() -> None:
        async with router_site() as site, site.client() as client:
            site.add(await stub())
            for number in range(40):
                await client.post("/v1/completions", json=body(7, stream=number % 2 == 0, user="terse"))
            found = site.desk.lengths.predict(model="chat", caller="/terse", prompt_tokens=3)
            assert found.median_tokens < 20
            assert site.desk.figures.of[SS].finished + site.desk.figures.of[REQUEST_CLASSES[1]].finished == 40

    run(test())


def test_a_request_goes_to_the_pool_of_its_class() -> None:
    async def test() -> None:
        async with router_site() as site, site.client() as client:
            small, large = await stub(), await stub()
            site.add(small, pool=SS)
            site.add(large, pool=LL)
            await client.post("/v1/completions", json=body(8))
            await client.post("/v1/completions", json=body(8, prompt=[1] * 3000))
            assert (small.answered, large.answered) == (1, 1)

    run(test())


@pytest.mark.parametrize("behaviour", [{"refuse_status": 503}, {"refuse_status": 429}, {"break_after_tokens": 0}])
def test_a_request_that_no_client_has_seen_a_token_of_is_sent_to_another(behaviour: dict[str, Any]) -> None:
    async def test() -> None:
        async with router_site() as site, site.client() as client:
            bad, good = await stub(**behaviour), await stub()
            site.add(bad)
            site.add(good)
            for _ in range(4):
                answer = await client.post("/v1/completions", json=body(stream=True))
                assert (answer.status_code, answer.text.count("token")) == (200, 4)
            assert site.desk.figures.retried == 1  # a failed instance gets nothing until it is heard of again
            await drained(site)

    run(test())


def test_a_killed_instance_fails_no_request_that_had_not_begun() -> None:
    async def test() -> None:
        async with router_site() as site, site.client() as client:
            first, second = await stub(first_token_s=0.3), await stub(first_token_s=0.3)
            site.add(first)
            site.add(second)
            asking = [asyncio.ensure_future(client.post("/v1/completions", json=body())) for _ in range(20)]
            while first.running < 5:
                await asyncio.sleep(0.01)
            await first.stop()
            answers = await asyncio.gather(*asking)
            assert [one.status_code for one in answers] == [200] * 20
            assert site.desk.figures.retried > 0

    run(test())


def test_a_stream_that_breaks_off_says_so_and_is_not_begun_again() -> None:
    async def test() -> None:
        async with router_site() as site, site.client() as client:
            bad, good = await stub(break_after_tokens=2), await stub()
            site.add(bad, pool=SS)
            site.add(good, pool=LL)
            answer = await client.post("/v1/completions", json=body(stream=True))
            lines = [line for line in answer.text.splitlines() if line]
            assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == 502
            assert (good.answered, site.desk.figures.broken) == (0, 1)
            await drained(site)

    run(test())


def test_two_dead_instances_are_one_clear_error() -> None:
    async def test() -> None:
        async with router_site(patience_s=0.2) as site, site.client() as client:
            for _ in range(2):
                dead = await stub()
                await dead.stop()
                site.add(dead)
            answer = await client.post("/v1/completions", json=body())
            assert answer.status_code == 502
            later = await client.post("/v1/completions", json=body())
            assert (later.status_code, "retry-after" in later.headers) == (503, True)
            await drained(site)

    run(test())


def test_a_client_that_leaves_frees_its_place_at_the_instance() -> None:
    async def test() -> None:
        async with router_site() as site, site.client() as client:
            made = await stub(silent=True)
            site.add(made)
            asking = asyncio.ensure_future(client.post("/v1/completions", json=body()))
            while not made.running:
                await asyncio.sleep(0.01)
            asking.cancel()
            await drained(site)

    run(test())


def test_only_known_callers_are_let_in(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.touch(mode=0o600)
    file.write_text(f"# who\nalice:{KEY}\n")

    async def test() -> None:
        async with router_site(callers=ApiKeys(file)) as site, site.client() as client:
            site.add(await stub())
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}):
                for path in ("/v1/completions", "/v1/models", "/router/status"):
                    call = client.post if path == "/v1/completions" else client.get
                    more = {"json": body()} if path == "/v1/completions" else {}
                    answer = await call(path, headers=headers, **more)  # type: ignore[operator]
                    assert answer.status_code == 401
                    assert answer.json()["error"]["type"] == "authentication_error"
            known = {"Authorization": f"Bearer {KEY}"}
            assert (await client.post("/v1/completions", json=body(), headers=known)).status_code == 200
            assert (await client.get("/router/status", headers=known)).json()["answered"] == 1
            assert (await client.get("/health")).status_code == 200

    run(test())


HOSTILE = [
    pytest.param(b"", 400, id="nothing"),
    pytest.param(b"{", 400, id="half"),
    pytest.param(b"[" * 50_000, 400, id="deep"),
    pytest.param(b"[]", 400, id="list"),
    pytest.param(b'{"prompt": 3}', 400, id="prompt"),
    pytest.param(b'{"prompt": []}', 400, id="no-prompt"),
    pytest.param(b'{"prompt": "x", "max_tokens": "many"}', 400, id="max-tokens"),
    pytest.param(b'{"prompt": "x", "max_tokens": -1}', 400, id="negative"),
    pytest.param(b'{"prompt": "x", "max_tokens": 1e400}', 400, id="infinite"),
    pytest.param(b'{"prompt": "x", "stream": "yes"}', 400, id="stream"),
    pytest.param(b'{"prompt": "x", "model": 7}', 400, id="model-type"),
    pytest.param(b'{"prompt": "x", "user": {}}', 400, id="user"),
    pytest.param(b'{"prompt": "x", "model": "../../etc/passwd"}', 404, id="unknown-model"),
    pytest.param(b'{"prompt": "\xff\xfe"}', 400, id="no-utf8"),
    pytest.param(b" " * 100_001, 413, id="too-large"),
]


@pytest.mark.parametrize(("raw", "status"), HOSTILE)
def test_a_bad_body_is_refused_in_clear_words_before_any_instance_sees_it(raw: bytes, status: int) -> None:
    async def test() -> None:
        async with router_site() as site, site.client() as client:
            made = await stub()
            site.add(made)
            answer = await client.post("/v1/completions", content=raw)
            assert answer.status_code == status
            assert answer.json()["error"]["code"] == status
            assert made.answered == 0

    run(test())


def test_a_body_without_length_is_cut_at_the_limit_too() -> None:
    async def endless() -> Any:
        for _ in range(1000):
            yield b" " * 1000

    async def test() -> None:
        async with router_site() as site, site.client() as client:
            site.add(await stub())
            answer = await client.post("/v1/completions", content=endless())
            assert answer.status_code == 413

    run(test())


def test_a_head_without_end_is_hung_up_on() -> None:
    async def test() -> None:
        async with router_site() as site:
            host, port = site.url.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n")

            async def write_on() -> None:
                while True:
                    writer.write(b"x-filler: " + b"a" * 1000 + b"\r\n")
                    await writer.drain()
                    await asyncio.sleep(0)

            with pytest.raises(ConnectionError):
                await write_on()

    run(test())


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/completions"), ("POST", "/v1/models"), ("GET", "/nowhere")])
def test_other_paths_and_methods_are_refused(method: str, path: str) -> None:
    async def test() -> None:
        async with router_site() as site, site.client() as client:
            answer = await client.request(method, path)
            assert answer.status_code in (404, 405)
            assert "error" in answer.json()

    run(test())


def test_models_are_listed_and_an_unknown_one_is_named() -> None:
    async def test() -> None:
        async with router_site() as site, site.client() as client:
            listed = (await client.get("/v1/models")).json()
            assert [one["id"] for one in listed["data"]] == ["chat", "large"]
            assert (await client.get("/v1/models/chat")).json()["id"] == "chat"
            assert (await client.get("/v1/models/other")).status_code == 404

    run(test())


def test_ten_times_the_load_is_refused_with_a_time_to_return_and_leaves_nothing_behind() -> None:
    async def test() -> None:
        slo = Slo(ttft_s=dict.fromkeys(Size, 0.05), tbt_s=0.1)
        async with router_site(max_waiting=32, patience_s=20.0, slo=slo) as site, site.client() as client:
            made = await stub(first_token_s=0.05)
            site.add(made, seats=4)
            answers = await asyncio.gather(*(client.post("/v1/completions", json=body()) for _ in range(200)))
            by_status = {status: sum(one.status_code == status for one in answers) for status in (200, 429)}
            assert by_status[200] >= 32
            assert by_status[200] + by_status[429] == 200
            assert all(int(one.headers["retry-after"]) >= 1 for one in answers if one.status_code == 429)
            assert made.most_running <= 4
            assert site.hurried  # the clock was asked to rise before anybody was refused
            assert (await client.post("/v1/completions", json=body())).status_code == 200
            await drained(site)

    run(test())


def test_many_callers_and_requests_leave_tables_bounded() -> None:
    async def test() -> None:
        async with router_site(max_waiting=1000) as site, site.client() as client:
            site.add(await stub())
            site.desk.lengths._most_callers = 50
            for lot in range(10):
                asked = (
                    client.post("/v1/completions", json=body(2, user=f"u{lot}-{number}", stream=number % 2 == 0))
                    for number in range(20)
                )
                await asyncio.gather(*asked)
            figures: httpx.Response = await client.get("/router/status")
            assert figures.json()["answered"] == 200
            assert len(site.desk.lengths) == 50
            assert site.streams.kept() <= 64
            await drained(site)
            assert not site.desk._places
            assert not site.desk._waiting

    run(test())
