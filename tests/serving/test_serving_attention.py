"""Every back-end gives what a loop in float64 gives: any lengths, chunks, head groups, latent values, cache types."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from job_wrappers.serving.attention.choose import choose_attention  # noqa: E402
from job_wrappers.serving.attention.cpu import CpuAttention  # noqa: E402
from job_wrappers.serving.attention.reference import ReferenceAttention  # noqa: E402
from job_wrappers.serving.errors import ConfigError  # noqa: E402
from job_wrappers.serving.kernels import paged_cpu  # noqa: E402
from tests.serving.paged_steps import Shape, fill, make_step, make_store, naive  # noqa: E402

pytestmark = pytest.mark.torch

PLAIN = Shape()
LATENT = Shape(heads=8, kv_heads=1, key_size=96, value_size=64, values_in_keys=True)
SHAPES = {
    "multi-head": Shape(heads=3, kv_heads=3),
    "grouped": PLAIN,
    "one kv head": Shape(heads=5, kv_heads=1),
    "uneven sizes": Shape(heads=4, kv_heads=2, key_size=24, value_size=40),
    "odd sizes": Shape(heads=2, kv_heads=1, key_size=7, value_size=5),
    "head of 128": Shape(heads=8, kv_heads=2, key_size=128, value_size=128),
    "latent": LATENT,
    "short blocks": Shape(block_tokens=3),
    "long blocks": Shape(block_tokens=64),
}
LENGTHS = {
    "one token": [(0, 1)],
    "ragged decodes": [(0, 1), (15, 1), (16, 1), (31, 1), (100, 1), (300, 1)],
    "whole prompts": [(0, 16), (0, 2), (0, 33)],
    "chunks": [(16, 16), (5, 40), (300, 7)],
    "mixed": [(47, 1), (1, 1), (0, 50), (64, 19), (0, 1)],
    "nothing": [],
}


@pytest.fixture(params=[ReferenceAttention, CpuAttention], ids=["reference", "cpu"])
def backend(request):
    return request.param()


def largest_error(backend, shape: Shape, lengths, dtype=torch.float32, *, decodes: int | None = None) -> float:
    step, blocks = make_step(lengths, decodes=decodes, block_tokens=shape.block_tokens)
    layer = make_store(shape, blocks, dtype).layer(1)
    written = fill(layer, step, shape, dtype)
    random = torch.Generator().manual_seed(2)
    queries = torch.randn(len(step.positions), shape.heads, shape.key_size, generator=random).to(dtype)
    scale = shape.key_size**-0.5
    result = backend.attend(queries, layer, backend.plan(step), scale=scale)
    assert result.dtype is dtype
    assert tuple(result.shape) == (len(step.positions), shape.heads, shape.value_size)
    if len(lengths) == 0:
        return 0.0
    return float((result.double() - naive(queries, written, step, scale=scale)).abs().max())


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_it_equals_the_loop(backend, shape, lengths):
    assert largest_error(backend, shape, lengths) < 3e-6


@pytest.mark.parametrize("shape", [PLAIN, LATENT], ids=["grouped", "latent"])
def test_it_equals_the_loop_in_bf16_to_a_rounding(backend, shape):
    assert largest_error(backend, shape, LENGTHS["mixed"], torch.bfloat16) < 0.02


def test_a_prompt_may_stand_among_the_decodes(backend):
    """A prompt of one token counts as either."""
    assert largest_error(backend, PLAIN, LENGTHS["ragged decodes"], decodes=2) < 3e-6


def test_queries_may_be_a_view_of_a_merged_projection(backend):
    step, blocks = make_step([(20, 1), (0, 9)])
    layer = make_store(PLAIN, blocks).layer(0)
    fill(layer, step, PLAIN)
    merged = torch.randn(10, 8, 32)
    view = backend.attend(merged[:, :4], layer, backend.plan(step), scale=0.2)
    compact = backend.attend(merged[:, :4].contiguous(), layer, backend.plan(step), scale=0.2)
    assert torch.equal(view, compact)


def test_huge_scores_neither_overflow_nor_lose_the_winner(backend):
    step, blocks = make_step([(40, 1)])
    layer = make_store(PLAIN, blocks).layer(0)
    [(keys, values)] = fill(layer, step, PLAIN)
    queries = 1e4 * keys[7].repeat_interleave(2, dim=0)[None]
    result = backend.attend(queries, layer, backend.plan(step), scale=1.0)
    assert torch.allclose(result[0], values[7].repeat_interleave(2, dim=0), atol=1e-6)


def test_one_plan_serves_all_layers(backend):
    step, blocks = make_step(LENGTHS["mixed"])
    store, plan = make_store(PLAIN, blocks), backend.plan(step)
    queries = torch.randn(len(step.positions), 4, 32)
    for seed, layer in enumerate(store.layers()):
        written = fill(layer, step, PLAIN, seed=seed)
        result = backend.attend(queries, layer, plan, scale=0.2)
        assert float((result - naive(queries, written, step, scale=0.2)).abs().max()) < 3e-6


def test_a_sequence_comes_out_the_same_in_any_company_on_a_cpu():
    """Alone, among others, on one thread or two: so a batch cannot change what is sampled."""
    lengths = [(1100, 1), (40, 1), (700, 1), (5, 1), *[(90, 1)] * 6, (30, 20)]
    step, blocks = make_step(lengths)
    layer = make_store(PLAIN, blocks).layer(0)
    fill(layer, step, PLAIN)
    queries, backend = torch.randn(len(step.positions), 4, 32), CpuAttention()
    if layer.native is None:
        pytest.skip("our C does not run here")
    together = backend.attend(queries, layer, backend.plan(step), scale=0.2)
    with threads(2):
        assert torch.equal(backend.attend(queries, layer, backend.plan(step), scale=0.2), together)
    for row in range(10):
        alone = replace(
            step,
            query_starts=step.query_starts[:2],
            context_lengths=step.context_lengths[row : row + 1],
            block_tables=step.block_tables[row : row + 1],
            decodes=1,
        )
        result = backend.attend(queries[row : row + 1], layer, backend.plan(alone), scale=0.2)
        assert torch.equal(result, together[row : row + 1])


@pytest.mark.parametrize("shape", [PLAIN, LATENT], ids=["grouped", "latent"])
def test_two_threads_share_long_contexts_and_prompts(shape):
    with threads(2):
        assert largest_error(CpuAttention(), shape, [(1500, 1), (20, 1), (512, 1), (0, 200)]) < 3e-6


@contextmanager
def threads(count: int):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_without_a_compiler_the_reference_attends(monkeypatch):
    monkeypatch.setattr(paged_cpu, "_library", lambda: None)
    assert isinstance(choose_attention(torch.device("cpu")), ReferenceAttention)
    with pytest.raises(ConfigError, match="attention = cpu: needs a model on the CPU and a C compiler"):
        choose_attention(torch.device("cpu"), "cpu")
    assert largest_error(CpuAttention(), PLAIN, LENGTHS["mixed"]) < 3e-6


def test_a_back_end_is_chosen_by_name():
    assert isinstance(choose_attention(torch.device("cpu"), "reference"), ReferenceAttention)
    with pytest.raises(ConfigError, match="attention = flash: must be one of auto, cpu, triton, reference"):
        choose_attention(torch.device("cpu"), "flash")
    with pytest.raises(ConfigError, match="attention = triton: needs a GPU that runs our kernel; the model is on cpu"):
        choose_attention(torch.device("cpu"), "triton")
