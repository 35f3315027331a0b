"""The engine's greedy tokens are those of transformers' generate, whatever happens to a request on its way."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from job_wrappers.serving.engine.config import EngineConfig, ModelSpec  # noqa: E402
from job_wrappers.serving.engine.offline import Answer, Offline, one_rank_host  # noqa: E402
from job_wrappers.serving.requests.output import FinishReason  # noqa: E402
from job_wrappers.serving.requests.params import SamplingParams  # noqa: E402
from tests.serving.tiny_models import FAMILIES, oracle_greedy, tiny_folder  # noqa: E402

pytestmark = pytest.mark.torch

MIB = 1024 * 1024
NEW_TOKENS = 12
GREEDY = SamplingParams(max_tokens=NEW_TOKENS, temperature=0.0)


@lru_cache(maxsize=1)
def prompts() -> tuple[tuple[int, ...], ...]:
    """64 of mixed length; every second one starts as the one before it does."""
    random = torch.Generator().manual_seed(5)
    found: list[tuple[int, ...]] = []
    for i in range(64):
        length = int(torch.randint(1, 90, (1,), generator=random))
        fresh = tuple(int(t) for t in torch.randint(2, 500, (length,), generator=random))
        found.append((*found[-1][:40], *fresh[:10]) if i % 2 else fresh)
    return tuple(found)


@lru_cache(maxsize=8)
def wanted(folder: Path) -> list[list[int]]:
    return [oracle_greedy(folder, prompt, new_tokens=NEW_TOKENS) for prompt in prompts()]


def engine_of(folder: Path, **settings: Any) -> Offline:
    values: dict[str, Any] = {
        "models": (ModelSpec(name="m", path=folder),),
        "memory_bytes": 96 * MIB,
        "swap_bytes": 16 * MIB,
        "max_model_len": 256,
        "max_num_seqs": 16,
        "max_batched_tokens": 128,
        "check_invariants": True,
    }
    return Offline(one_rank_host(EngineConfig(**(values | settings))))


def squeeze(offline: Offline, blocks: int) -> None:
    """Leave only so many blocks: others are held by nobody in particular."""
    pool = offline.host.engines["m"].scheduler.pool
    offline.host.engines["m"]._checks = False  # these blocks have no table
    while pool.available > blocks:
        pool.take()


def tokens_of(answers: list[Answer]) -> list[list[int]]:
    return [answer.tokens[0] for answer in answers]


@pytest.mark.parametrize("family", FAMILIES)
def test_plain(family: str) -> None:
    folder = tiny_folder(family)
    assert tokens_of(engine_of(folder).generate(prompts(), GREEDY)) == wanted(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_prompts_found_in_the_cache(family: str) -> None:
    folder = tiny_folder(family)
    offline = engine_of(folder)
    offline.generate(prompts(), GREEDY)
    again = offline.generate(prompts(), GREEDY)
    assert tokens_of(again) == wanted(folder)
    assert sum(a.usage.cached_tokens for a in again if a.usage) > 500


@pytest.mark.parametrize("family", FAMILIES)
def test_with_prompts_in_chunks(family: str) -> None:
    folder = tiny_folder(family)
    assert tokens_of(engine_of(folder, max_batched_tokens=23).generate(prompts(), GREEDY)) == wanted(folder)


@pytest.mark.parametrize("way", ["swap", "recompute"])
@pytest.mark.parametrize("family", FAMILIES)
def test_preempted_because_blocks_ran_out(family: str, way: str) -> None:
    folder = tiny_folder(family)
    offline = engine_of(folder, preemption=way, prefix_caching=False, block_tokens=4)
    squeeze(offline, 70)
    answers = offline.generate(prompts(), GREEDY)
    assert tokens_of(answers) == wanted(folder)
    done = {kind.value: count for kind, count in offline.host.engines["m"].scheduler.preemptions.items()}
    assert done[way] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_with_the_batch_size_changed_on_the_way(family: str) -> None:
    folder = tiny_folder(family)
    offline = engine_of(folder)
    answers = [offline.submit(prompt, GREEDY) for prompt in prompts()]
    for size in (1, 16, 3, 8, 2, 16):
        for _ in range(4):
            offline.step()
        offline.host._set_limits(size, None)
    while offline.step():
        pass
    assert tokens_of(answers) == wanted(folder)


def test_seeded_choices_are_the_same_alone_and_in_a_crowd() -> None:
    params = SamplingParams(max_tokens=8, temperature=1.0, seed=11, n=3)
    folder = tiny_folder("llama")
    alone = engine_of(folder).generate([prompts()[0]], params)[0]
    crowd = engine_of(folder, max_batched_tokens=20).generate([*prompts()[:20], prompts()[0]], params)[-1]
    assert alone.tokens == crowd.tokens
    assert len({tuple(tokens) for tokens in alone.tokens.values()}) > 1
    assert alone.reasons == {0: FinishReason.LENGTH, 1: FinishReason.LENGTH, 2: FinishReason.LENGTH}


def test_usage_counts_what_was_read_found_and_written() -> None:
    offline = engine_of(tiny_folder("llama"))
    offline.generate([range(2, 50)], GREEDY)
    usage = offline.generate([range(2, 50)], GREEDY)[0].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (48, 32, NEW_TOKENS)
    assert usage.energy_joules is None


def test_a_stop_string_ends_the_text_before_it() -> None:
    folder = tiny_folder("llama")
    whole = engine_of(folder).generate([range(2, 20)], GREEDY)[0].text[0]
    stop = whole[5:8]
    cut = engine_of(folder).generate(
        [range(2, 20)], SamplingParams(max_tokens=NEW_TOKENS, temperature=0.0, stop=(stop,))
    )[0]
    assert cut.text[0] == whole[: whole.index(stop)]
    assert cut.reasons[0] is FinishReason.STOP


def test_switching_the_model_ends_old_requests_on_the_old_one() -> None:
    large, small = tiny_folder("llama"), tiny_folder("qwen3")
    models = (ModelSpec(name="m", path=large), ModelSpec(name="s", path=small))
    offline = engine_of(large, models=models, public_name="chat")
    host = offline.host
    old = [offline.submit(prompt, GREEDY) for prompt in prompts()[:4]]
    offline.step()
    host.loop.call = lambda call: call()  # type: ignore[method-assign,assignment]
    host.switch_model("s")
    new = [offline.submit(prompt, GREEDY) for prompt in prompts()[:4]]
    while offline.step():
        pass
    assert tokens_of(old) == wanted(large)[:4]
    assert tokens_of(new) == wanted(small)[:4]
    host.settle()
    assert {name: state.value for name, state in host.states.items()} == {"m": "asleep", "s": "active"}
    host.switch_model("m")
    assert tokens_of(offline.generate(prompts()[:4], GREEDY)) == wanted(large)[:4]
