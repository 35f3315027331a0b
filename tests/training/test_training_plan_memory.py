"""What a rank keeps, against numbers made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from training.model.presets import preset
from training.parallel.plan import ParallelPlan
from training.planning.memory import activation_bytes, memory_by_rank, peak_activation_bytes, predicted_memory_bytes
from training.planning.model_layers import model_layers
from training.planning.schedule import streams
from training.precision import policy

LLAMA, V3 = preset("tiny-llama"), preset("tiny-v3")
FP8, BF16 = policy("fp8"), policy("bf16")


def test_one_rank_keeps_fourteen_bytes_a_parameter() -> None:
    """BF16 value, FP32 gradient, FP32 master copy, two BF16 moments."""
    (rank,) = memory_by_rank(ParallelPlan(), LLAMA, 128, BF16)
    fixed = rank.parameters_bytes + rank.gradients_bytes + rank.optimizer_bytes
    assert fixed == LLAMA.parameter_count() * (2 + 4 + 4 + 4)
    assert rank.quantised_bytes == 0


def test_zero_deals_out_the_optimizer_then_gradients_then_parameters() -> None:
    one, two, three = (memory_by_rank(ParallelPlan(data=4, zero_stage=z), LLAMA, 128, BF16)[0] for z in (1, 2, 3))
    count = LLAMA.parameter_count()
    assert one.optimizer_bytes == count / 4 * 8
    assert (one.gradients_bytes, two.gradients_bytes) == (count * 4, count)
    assert (two.parameters_bytes, three.parameters_bytes) == (count * 2, count / 2)


def test_the_first_rank_of_one_f_one_b_keeps_as_many_micro_batches_as_there_are_ranks() -> None:
    orders = streams("1f1b", 4, 12)
    assert [peak_activation_bytes(order, [10.0] * 4) for order in orders] == [40, 30, 20, 10]


def test_every_rank_of_dualpipev_keeps_two_p_plus_one_half_stages_or_less() -> None:
    """DualPipe's README: PP + 1 chunks, of PP = 2p."""
    for p in (2, 3, 4, 8):
        peaks = [peak_activation_bytes(order, [1.0] * 2 * p) for order in streams("dualpipev", p, 4 * p)]
        assert max(peaks) <= 2 * p + 1


def test_more_micro_batches_do_not_need_more_memory_once_the_pipeline_is_full() -> None:
    few, many = (predicted_memory_bytes(ParallelPlan(pipeline=3, micro_batches=m), LLAMA, 128, BF16) for m in (12, 120))
    assert few == many


def test_a_dense_layers_activations_by_hand() -> None:
    """Two norms' inputs, qkv's and the feed-forward's inputs, SwiGLU's two halves and its product, o_proj's input;
    queries, keys, values and the logarithm of each head's sum."""
    layer = model_layers(LLAMA)[1]
    per_token = 2 * 256 * 2 + 2 * 4 + 2 * 256 * 2 + 3 * 512 * 2 + 512 * 2
    core = {"bf16": 3 * 8 * 64 * 2 + 8 * 4, "fp8": 3 * 8 * 64 + 8 * 4}
    for table in (BF16, FP8):
        assert activation_bytes(layer, ParallelPlan(), 10, table) == 10 * (per_token + core[table.name])


def test_tensor_ranks_share_what_is_cut_and_keep_copies_of_what_is_not() -> None:
    layer = model_layers(LLAMA)[1]
    whole = activation_bytes(layer, ParallelPlan(), 10, BF16)
    half = activation_bytes(layer, ParallelPlan(tensor=2), 10, BF16)
    assert whole / 2 < half < whole


def test_fp8_keeps_a_second_copy_of_the_weights_it_multiplies() -> None:
    (rank,) = memory_by_rank(ParallelPlan(), LLAMA, 128, FP8)
    multiplied = LLAMA.parameter_count() - 2 * 512 * 256 - (2 * 3 + 1) * 256  # not embedding, head, norms
    assert rank.quantised_bytes == multiplied


def test_an_embedding_used_twice_on_a_rank_is_kept_once() -> None:
    both, apart = (
        memory_by_rank(ParallelPlan(pipeline=2, micro_batches=2), V3, 128, BF16, boundaries=b)
        for b in ([0, 6, 8], [0, 4, 8])
    )
    total = [sum(rank.parameters_bytes for rank in ranks) for ranks in (both, apart)]
    assert total[1] - total[0] == V3.embedding_parameters * 2


def test_tied_heads_cost_no_parameters() -> None:
    tied = replace(LLAMA, tie_word_embeddings=True)
    assert memory_by_rank(ParallelPlan(), tied, 128, BF16)[0].parameters_bytes == tied.parameter_count() * 2


@pytest.mark.parametrize("schedule", ["1f1b", "dualpipev"])
def test_the_fullest_rank_counts(schedule) -> None:
    plan = ParallelPlan(pipeline=2, micro_batches=4, schedule=schedule)
    ranks = memory_by_rank(plan, V3, 128, FP8)
    assert predicted_memory_bytes(plan, V3, 128, FP8) == max(rank.total_bytes for rank in ranks)
