"""Bytes by formula, against numbers made by hand."""

from __future__ import annotations

from training.model.presets import preset
from training.parallel.plan import ParallelPlan
from training.planning.volume import bytes_per_step, rank_volumes, wire_bytes
from training.precision import policy

V3, LLAMA = preset("tiny-v3"), preset("tiny-llama")
FP8, BF16, FP32 = policy("fp8"), policy("bf16"), policy("fp32")


def test_a_single_rank_sends_nothing() -> None:
    assert bytes_per_step(ParallelPlan(micro_batches=3), V3, 128, FP8) == {}


def test_megatrons_four_sums_a_layer() -> None:
    """Two forward and two backward sums of tokens x hidden in FP32 for each of 3 layers; and embedding, head, loss."""
    (volume,) = rank_volumes(ParallelPlan(tensor=2, micro_sequences=2, micro_batches=3), LLAMA, 64, BF16)
    tokens, hidden = 3 * 2 * 64, 256
    assert volume == {
        "tensor.embedding": tokens * hidden * 2,
        "tensor.reduce": 3 * 2 * tokens * hidden * 4,
        "tensor.copy_backward": 3 * 2 * tokens * hidden * 4 + tokens * hidden * 4,
        "tensor.loss": tokens * 12,
    }


def test_stages_send_activations_and_ids_one_way_and_gradients_back() -> None:
    plan = ParallelPlan(pipeline=2, micro_batches=4)
    first, last = rank_volumes(plan, LLAMA, 128, BF16)
    assert first == {"pipe.send": 4 * 128 * (256 * 2 + 8)}
    assert last == {"pipe.send": 4 * 128 * 256 * 2}


def test_dualpipev_crosses_twice_as_many_borders_but_not_the_turn() -> None:
    """Four stages on two ranks: borders 0-1 and 2-3 cross, 1-2 stays on the last rank."""
    plan = ParallelPlan(pipeline=2, micro_batches=4, schedule="dualpipev")
    first, last = rank_volumes(plan, LLAMA, 128, BF16, boundaries=[0, 2, 3, 4, 6])
    one_border = 4 * 128 * 256 * 2
    assert first["pipe.send"] == 2 * one_border + 4 * 128 * 8
    assert last["pipe.send"] == 2 * one_border + 4 * 128 * 8


def test_behind_the_second_embedding_two_hidden_states_travel() -> None:
    """Layers: embedding, 3 blocks, final norm, mtp embedding | mtp block, head."""
    plan = ParallelPlan(pipeline=2, micro_batches=1)
    first, last = rank_volumes(plan, V3, 128, BF16, boundaries=[0, 6, 8])
    assert first["pipe.send"] == 128 * (2 * 128 * 2 + 8)
    assert last["pipe.send"] == 128 * 2 * 128 * 2
    assert "pipe.all_reduce" not in first  # both uses of the embedding are here


def test_the_gradient_of_an_embedding_used_on_two_ranks_is_summed_over_both() -> None:
    plan = ParallelPlan(pipeline=2, micro_batches=1)
    for volume in rank_volumes(plan, V3, 128, BF16, boundaries=[0, 4, 8]):
        assert volume["pipe.all_reduce"] == 512 * 128 * 4


def test_zero_1_reduces_fp32_gradients_and_gathers_bf16_parts() -> None:
    (volume,) = rank_volumes(ParallelPlan(data=4), LLAMA, 128, BF16)
    parameters = LLAMA.parameter_count()
    assert volume == {"data.all_reduce": parameters * 4, "data.all_gather_into_tensor": parameters / 4 * 2}


def test_gradient_bytes_do_not_grow_with_micro_batches() -> None:
    few, many = (bytes_per_step(ParallelPlan(data=2, micro_batches=m), V3, 128, FP8)["data"] for m in (1, 8))
    assert few == many


def test_experts_are_reduced_over_the_ranks_that_hold_the_same_ones() -> None:
    (volume,) = rank_volumes(ParallelPlan(data=4, expert=2), V3, 128, BF16)
    experts = 3 * 4 * 3 * 128 * 256  # 2 MoE layers and mtp's, 4 experts, 3 matrices
    assert volume["expert_data.all_reduce"] == experts / 2 * 4
    assert volume["data.all_reduce"] == (V3.parameter_count() - experts) * 4
    assert volume["data.router_counts"] == 3 * 4 * 8


def test_no_expert_traffic_is_left_where_every_expert_has_one_home() -> None:
    volume = bytes_per_step(ParallelPlan(data=2, expert=2), V3, 128, BF16)
    assert "expert_data" not in volume


def test_fp8_halves_the_dispatch_and_nothing_else() -> None:
    plan = ParallelPlan(data=2, expert=2)
    (fp8,), (bf16,) = (rank_volumes(plan, V3, 128, table) for table in (FP8, BF16))
    assert fp8["expert.dispatch"] / bf16["expert.dispatch"] == 0.515625
    assert {n: b for n, b in fp8.items() if n != "expert.dispatch"} == {
        n: b for n, b in bf16.items() if n != "expert.dispatch"
    }
    assert fp8["expert.combine"] == 3 * 128 * 2 * 128 * 2  # layers, tokens, experts a token, hidden, bytes


def test_a_tile_of_128_codes_brings_one_fp32_scale() -> None:
    assert wire_bytes(FP8, "moe.dispatch") == 1 + 4 / 128
    assert wire_bytes(FP32, "moe.dispatch") == 4


def test_all_ranks_together_are_counted() -> None:
    plan = ParallelPlan(pipeline=2, tensor=2, data=2, expert=2, micro_batches=4)
    total = bytes_per_step(plan, V3, 128, FP8)
    by_hand = sum(
        size * 4
        for volume in rank_volumes(plan, V3, 128, FP8)
        for name, size in volume.items()
        if name.startswith("expert.")
    )
    assert total["expert"] == by_hand
    assert set(total) == {"pipe", "tensor", "data", "expert"}


def test_zero_2_reduces_after_each_micro_batch_and_zero_3_gathers_large_tensors_for_each() -> None:
    """All of tiny-llama's matrices have more than 1e5 values, its norms do not."""
    two, three = (
        rank_volumes(ParallelPlan(data=2, micro_batches=3, zero_stage=z), LLAMA, 128, BF16)[0] for z in (2, 3)
    )
    count = LLAMA.parameter_count()
    large = 3 * (256 * 1024 + 256 * 512 + 256 * 1024 + 512 * 256) + 2 * 512 * 256
    assert two == {"data.all_reduce": 3 * count * 4, "data.all_gather_into_tensor": count / 2 * 2}
    assert three["data.reduce_scatter_tensor"] == 3 * count * 4
    assert three["data.all_gather_into_tensor"] == (count - large + 3 * large) / 2 * 2
