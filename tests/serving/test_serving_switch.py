"""Steered while it serves: model, batch size, sleep. No request fails, and each model keeps to its own tokens."""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from job_wrappers.serving.engine.config import EngineConfig, EnginePorts, ModelSpec  # noqa: E402
from job_wrappers.serving.engine.host import EngineHost  # noqa: E402
from job_wrappers.serving.engine.offline import Answer, one_rank_host  # noqa: E402
from job_wrappers.serving.engine.views import ModelState  # noqa: E402
from job_wrappers.serving.errors import ConfigError, NotServing, ServingError, UnknownModel  # noqa: E402
from job_wrappers.serving.requests.output import ChoiceOutput, FinishReason  # noqa: E402
from job_wrappers.serving.requests.params import SamplingParams  # noqa: E402
from job_wrappers.serving.requests.request import Request  # noqa: E402
from tests.serving.tiny_models import oracle_greedy, tiny_folder  # noqa: E402

pytestmark = pytest.mark.torch

MIB = 1024 * 1024
GREEDY = SamplingParams(max_tokens=10, temperature=0.0)
PROMPTS = tuple(tuple(range(start, start + 3 * start)) for start in range(2, 10))
LARGE, SMALL = "m", "s"
WAIT_S = 60.0


class Waited(Answer):
    """An answer that another thread waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = threading.Event()
        self.error: str | None = None

    def hear(self, output: ChoiceOutput) -> None:
        super().hear(output)
        self.error = output.error or self.error
        if output.usage is not None:
            self.ended.set()


class Caller:
    """Hands requests to a host as the HTTP server does."""

    def __init__(self, host: EngineHost) -> None:
        self.host = host
        self._count = 0

    def begin(self, prompt: Sequence[int], params: SamplingParams = GREEDY, *, name: str = "one") -> tuple[str, Waited]:
        """The model that took it. Raise what the host refuses with, unless the model was switched meanwhile."""
        while True:
            model, answer = self.host.active().name, Waited()
            self._count += 1
            request = Request(
                request_id=f"{name}-{self._count}",
                model=model,
                prompt_token_ids=tuple(prompt),
                params=params,
                arrived_at_s=self.host.ports.now_s(),
            )
            try:
                self.host.submit(request, answer.hear).result(WAIT_S)
                return model, answer
            except NotServing as refusal:
                if refusal.retry_after_s != 0.0:
                    raise

    def ask(self, prompt: Sequence[int], params: SamplingParams = GREEDY, *, name: str = "one") -> tuple[str, Waited]:
        model, answer = self.begin(prompt, params, name=name)
        assert answer.ended.wait(WAIT_S)
        return model, answer


@contextmanager
def hosting(*folders: Path, ports: EnginePorts | None = None, **settings: Any) -> Iterator[EngineHost]:
    values: dict[str, Any] = {
        "models": tuple(ModelSpec(name=name, path=folder) for name, folder in zip("mst", folders, strict=False)),
        "memory_bytes": 96 * MIB,
        "swap_bytes": 4 * MIB,
        "max_model_len": 128,
        "max_num_seqs": 8,
        "max_batched_tokens": 64,
        "check_invariants": True,
    }
    host = one_rank_host(EngineConfig(**(values | settings)), ports)
    host.start(on_crash=lambda text: None)
    try:
        yield host
    finally:
        host.stop()


@contextmanager
def steady_load(host: EngineHost, clients: int = 6) -> Iterator[queue.Queue[tuple[str, int, list[int]]]]:
    """So many clients ask again and again. (model, prompt, tokens) of each answer; a failure is raised at the end."""
    found: queue.Queue[tuple[str, int, list[int]]] = queue.Queue()
    failures: list[BaseException] = []
    over = threading.Event()

    def run(client: int) -> None:
        caller, at = Caller(host), client
        while not over.is_set():
            at = (at + 1) % len(PROMPTS)
            try:
                model, answer = caller.ask(PROMPTS[at], name=f"client-{client}")
                assert answer.error is None
                found.put((model, at, answer.tokens[0]))
            except BaseException as failure:  # noqa: BLE001  raised again below, in the test's thread
                failures.append(failure)
                return

    threads = [threading.Thread(target=run, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        over.set()
        for thread in threads:
            thread.join(WAIT_S)
    if failures:
        raise failures[0]


@lru_cache(maxsize=2)
def wanted(family: str) -> list[list[int]]:
    return [oracle_greedy(tiny_folder(family), prompt, new_tokens=10) for prompt in PROMPTS]


def take(found: queue.Queue[tuple[str, int, list[int]]], model: str, count: int) -> None:
    """Wait until `model` has given so many answers more."""
    while count:
        name, at, tokens = found.get(timeout=WAIT_S)
        assert tokens == wanted("llama" if name == LARGE else "qwen3")[at]
        count -= name == model


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


@pytest.mark.parametrize("after_switch", ["sleep", "free"])
def test_models_are_switched_under_load_and_back_and_nothing_fails(after_switch: str) -> None:
    wanted("llama"), wanted("qwen3")
    with hosting(tiny_folder("llama"), tiny_folder("qwen3"), after_switch=after_switch) as host:
        with steady_load(host) as found:
            take(found, LARGE, 10)
            host.switch_model(SMALL)
            take(found, SMALL, 20)
            until(lambda: host.states[LARGE] in (ModelState.ASLEEP, ModelState.ABSENT))
            host.switch_model(LARGE)
            take(found, LARGE, 20)
        assert host.switch_s is not None
        assert host.states[LARGE] is ModelState.ACTIVE
        assert host.status().finished_total.keys() <= {FinishReason.LENGTH, FinishReason.STOP}


def test_the_batch_is_halved_and_restored_under_load_and_nothing_fails() -> None:
    with hosting(tiny_folder("llama")) as host, steady_load(host, clients=8) as found:
        take(found, LARGE, 8)
        for size in (2, 8):
            assert host.set_limits(max_num_seqs=size).max_num_seqs == size
            until(lambda: host.status().last_steered is not None and host.status().last_steered.effect_s is not None)
            running = host.loop.call(lambda: len(host.engines[LARGE].scheduler.running))
            assert running <= size
            take(found, LARGE, 10)


def test_a_switch_back_before_the_old_model_is_done_keeps_it_awake() -> None:
    with hosting(tiny_folder("llama"), tiny_folder("qwen3")) as host:
        caller = Caller(host)
        _, long = caller.begin(PROMPTS[0], SamplingParams(max_tokens=100, temperature=0.0, ignore_eos=True))
        engine = host.engines[LARGE]
        host.switch_model(SMALL)
        host.switch_model(LARGE)
        assert long.ended.wait(WAIT_S)
        assert long.error is None
        assert caller.ask(PROMPTS[1])[0] == LARGE
        until(lambda: host.states[SMALL] is ModelState.ASLEEP)
        assert host.engines[LARGE] is engine


def test_both_models_fit_the_budget_and_hold_as_many_tokens() -> None:
    with hosting(tiny_folder("llama"), tiny_folder("qwen3"), memory_bytes=6 * MIB) as host:
        first = host.engines[LARGE].size
        host.switch_model(SMALL)
        second = host.engines[SMALL].size
        assert second.device_blocks == pytest.approx(first.device_blocks, rel=0.2)
        used = sum(size.weight_bytes + size.device_blocks * size.layout.block_bytes for size in (first, second))
        assert used + max(first.activation_bytes, second.activation_bytes) <= 6 * MIB


def test_asleep_it_refuses_and_awake_it_goes_on() -> None:
    with hosting(tiny_folder("llama")) as host:
        caller = Caller(host)
        _, running = caller.begin(PROMPTS[0])
        host.sleep()
        assert running.ended.wait(WAIT_S)
        assert running.error is None
        until(lambda: host.states[LARGE] is ModelState.ASLEEP)
        with pytest.raises(NotServing):
            caller.begin(PROMPTS[0])
        host.wake()
        assert caller.ask(PROMPTS[0])[1].tokens == running.tokens


def test_draining_ends_what_runs_and_takes_nothing_new() -> None:
    with hosting(tiny_folder("llama")) as host:
        caller = Caller(host)
        _, running = caller.begin(PROMPTS[0])
        host.drain()
        with pytest.raises(NotServing, match="draining"):
            caller.begin(PROMPTS[0])
        assert running.ended.wait(WAIT_S)
        assert running.error is None
        until(lambda: host.unfinished() == 0)


def test_a_model_that_cannot_be_read_leaves_all_as_it_was(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_folder("qwen3"), broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    with hosting(tiny_folder("llama"), broken) as host:
        with pytest.raises(ConfigError, match="safetensors"):
            host.switch_model(SMALL)
        with pytest.raises(UnknownModel):
            host.switch_model("another")
        assert host.states == {LARGE: ModelState.ACTIVE, SMALL: ModelState.ABSENT}
        assert Caller(host).ask(PROMPTS[0])[0] == LARGE


def test_a_crash_tells_every_request_and_the_server() -> None:
    with hosting(tiny_folder("llama")) as host:
        crashes: list[str] = []
        host._on_crash = crashes.append
        caller = Caller(host)
        endless = SamplingParams(max_tokens=100, temperature=0.0, ignore_eos=True)
        answers = [caller.begin(prompt, endless)[1] for prompt in PROMPTS]

        def broken(*_: object) -> None:
            raise RuntimeError("no such kernel")

        host.team.run = broken  # type: ignore[method-assign,assignment]
        for answer in answers:
            assert answer.ended.wait(WAIT_S)
        until(lambda: bool(crashes))
        assert crashes == ["no such kernel"]
        assert {answer.error for answer in answers} <= {"no such kernel", None}
        with pytest.raises(ServingError):
            caller.begin(PROMPTS[0])


def test_joules_of_requests_and_of_rest_add_up_to_the_counter() -> None:
    ports = EnginePorts(read_joules=lambda: 300.0 * time.monotonic(), say=lambda line: None)
    with hosting(tiny_folder("llama"), ports=ports) as host:
        caller = Caller(host)
        answers = [caller.begin(prompt)[1] for prompt in PROMPTS]
        for answer in answers:
            assert answer.ended.wait(WAIT_S)
        shares = [answer.usage.energy_joules for answer in answers if answer.usage is not None]
        total, idle = host.loop.call(lambda: (host.shares.total_joules, host.shares.idle_joules))
        assert all(share is not None and share > 0 for share in shares)
        assert sum(share or 0.0 for share in shares) + idle == pytest.approx(total)
