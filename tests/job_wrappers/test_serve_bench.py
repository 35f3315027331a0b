"""What the benchmark sends, what it hears, and what it makes of it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from job_wrappers.serve import serve
from job_wrappers.serving.errors import ConfigError, RankLost
from job_wrappers.serving.launch.bench_asks import Ask, fitted, made_up, read_trace
from job_wrappers.serving.launch.bench_client import Heard, find_target
from job_wrappers.serving.launch.bench_figures import figures_of, percentiles

TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.6805900,396,109
2023-11-16 18:15:47.6805900,879,55
"""


def test_a_trace_is_replayed_in_its_order_and_as_fast_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE)
    asks = read_trace(path, speed=2.0, requests=None)
    assert [ask.at_s for ask in asks] == pytest.approx([0.0, 0.5, 2.0])
    assert [ask.prompt_tokens for ask in asks] == [374, 879, 396]
    assert len(read_trace(path, speed=1.0, requests=2)) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TRACE + "yesterday,1,2\n", "line 5: Invalid isoformat"),
        (TRACE + "2023-11-16 18:15:50,many,2\n", "line 5: invalid literal"),
        ("TIMESTAMP,ContextTokens\n", "no column GeneratedTokens"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "holds no request"),
    ],
)
def test_a_trace_that_cannot_be_read_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_trace(path, speed=1.0, requests=None)


def test_made_up_arrivals_come_at_their_rate_and_again_the_same() -> None:
    def draw(seed: int, rate_per_s: float | None = 20.0) -> list[Ask]:
        return made_up(requests=2000, rate_per_s=rate_per_s, prompt_tokens=(3, 9), new_tokens=(5, 5), seed=seed)

    asks = draw(1)
    assert asks == draw(1) != draw(2)
    assert asks[-1].at_s == pytest.approx(100.0, rel=0.1)
    assert {ask.prompt_tokens for ask in asks} == set(range(3, 10))
    assert {ask.at_s for ask in draw(1, None)} == {0.0}


def test_requests_are_cut_to_what_the_model_takes() -> None:
    asks, cut = fitted([Ask(0.0, 60, 40), Ask(0.0, 61, 40), Ask(0.0, 5, 200)], 100)
    assert asks == [Ask(0.0, 60, 40), Ask(0.0, 60, 40), Ask(0.0, 1, 99)]
    assert cut == 2


def test_percentiles_are_values_that_were_seen() -> None:
    assert percentiles([float(n) for n in range(1, 101)]) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert percentiles([3.0]) == {"p50": 3.0, "p95": 3.0, "p99": 3.0}
    assert percentiles([]) == {"p50": None, "p95": None, "p99": None}


def test_figures_count_finished_requests_only_and_say_what_became_of_the_others() -> None:
    ask = Ask(1.0, 10, 5)
    good = Heard(ask=ask, sent_s=1.5, outcome="finished", chunk_times_s=[2.0, 2.5, 4.0], completion_tokens=5)
    good.energy_joules = 30.0
    others = [Heard(ask=ask, sent_s=1.0, outcome=outcome) for outcome in ("refused", "refused", "HTTP 500")]
    figures = figures_of([good, *others], duration_s=4.0, energy_joules=100.0)
    assert (figures.finished, figures.refused, figures.failed) == (1, 2, 1)
    assert (figures.generated_tokens_per_s, figures.joules_per_token, figures.mean_watts) == (1.25, 20.0, 25.0)
    assert figures.requests_joules == 30.0
    assert figures.first_token_s["p50"] == 0.5
    assert figures.per_token_s["p50"] == 0.5, "2 s for the four tokens after the first"
    assert figures.longest_gap_s["p50"] == 1.5
    assert figures.whole_s["p50"] == 2.5
    assert figures.sent_late_s == 0.5


class Answers:
    """A server of the OpenAI API that refuses its 2nd request, breaks in the 3rd, and counts joules."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, object]] = []
        self.joules = 0.0
        self.running = self.most_running = 0

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/models", self.models),
                Route("/metrics", self.metrics),
                Route("/v1/completions", self.completions, methods=["POST"]),
            ]
        )

    async def models(self, http: Request) -> Response:
        return JSONResponse({"data": [{"id": "chat", "max_model_len": 64}]})

    async def metrics(self, http: Request) -> Response:
        return PlainTextResponse(f'slurm_power_energy_joules_total{{model_name="chat"}} {self.joules}\n')

    async def completions(self, http: Request) -> Response:
        self.bodies.append(await http.json())
        if len(self.bodies) == 2:
            return JSONResponse({"error": {"message": "full"}}, 429)
        return StreamingResponse(self.stream(len(self.bodies)), media_type="text/event-stream")

    async def stream(self, number: int) -> AsyncIterator[str]:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        for _ in range(3):
            await asyncio.sleep(0.01)
            yield f"data: {json.dumps({'choices': [{'text': 'a'}]})}\n\n"
        if number == 3:
            yield f"data: {json.dumps({'error': {'message': 'a rank is gone'}})}\n\n"
        else:
            self.joules += 12.0
            usage = {"completion_tokens": 3, "energy_joules": 12.0}
            yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n"
        yield "data: [DONE]\n\n"
        self.running -= 1


@contextmanager
def running(app: Starlette) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def test_a_server_is_measured_and_its_refusals_and_failures_are_told(tmp_path: Path) -> None:
    answers = Answers()
    plot = tmp_path / "plot.png"
    with running(answers.app()) as url:
        argv = ["bench", "--url", url, "--requests", "8", "--concurrency", "2", "--prompt-tokens", "5-9"]
        done = CliRunner().invoke(serve, [*argv, "--new-tokens", "3", "--json", "--plot", str(plot)])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures["outcomes"] == {"finished": 6, "refused": 1, "error: a rank is gone": 1}
    assert (figures["generated_tokens"], figures["energy_joules"], figures["requests_joules"]) == (18, 72.0, 72.0)
    assert answers.most_running <= 2
    assert {len(body["prompt"]) for body in answers.bodies} <= set(range(5, 10))  # type: ignore[arg-type]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_person_gets_tables(tmp_path: Path) -> None:
    with running(Answers().app()) as url:
        done = CliRunner().invoke(serve, ["bench", "--url", url, "--requests", "4", "--rate", "200"])
    assert "2 / 1 / 1" in done.output
    assert "first token" in done.output
    assert "1 x error: a rank is gone" in done.output


def test_where_no_server_is_one_line_says_so() -> None:
    with pytest.raises(RankLost, match="is no server that can be measured"):
        find_target("http://127.0.0.1:9")
    with running(Starlette()) as url, pytest.raises(RankLost, match="404"):
        find_target(url)


def test_a_wrong_span_is_wrong_usage() -> None:
    done = CliRunner().invoke(serve, ["bench", "--prompt-tokens", "9-3"])
    assert (done.exit_code, "9-3 is neither a number" in done.output) == (2, True)
