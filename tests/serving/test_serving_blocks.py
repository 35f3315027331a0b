"""Blocks: who holds them, which are found again, and when the books are wrong."""

from __future__ import annotations

import pytest

from job_wrappers.serving.errors import DoesNotFit
from job_wrappers.serving.kv.block_pool import BlockPool, OutOfBlocks
from job_wrappers.serving.kv.block_table import BlockTable
from job_wrappers.serving.kv.invariants import InvariantBroken, check
from job_wrappers.serving.kv.layout import KvLayout
from job_wrappers.serving.kv.sizing import size_cache, waste_fraction

MIB = 1024 * 1024


def filled(pool: BlockPool, tokens: list[int]) -> BlockTable:
    table = BlockTable(pool, 4)
    table.reserve(0, len(tokens))
    table.publish(tokens, len(tokens))
    return table


def test_the_block_left_idle_longest_is_forgotten_first() -> None:
    pool = BlockPool(3)
    first, second = filled(pool, [1, 2, 3, 4]), filled(pool, [5, 6, 7, 8])
    first.release()
    second.release()
    pool.take()
    pool.take()
    assert BlockTable(pool, 4).find_prefix([1, 2, 3, 4, 9]) == []
    assert len(BlockTable(pool, 4).find_prefix([5, 6, 7, 8, 9])) == 1


def test_the_end_of_a_prefix_is_forgotten_before_its_start() -> None:
    pool = BlockPool(2)
    filled(pool, list(range(8))).release()
    pool.take()
    assert len(BlockTable(pool, 4).find_prefix([*range(8), 9])) == 1


def test_a_prefix_is_never_the_whole_prompt() -> None:
    pool = BlockPool(4)
    filled(pool, list(range(8)))
    assert len(BlockTable(pool, 4).find_prefix(list(range(8)))) == 1


def test_equal_tokens_behind_another_start_are_another_block() -> None:
    pool = BlockPool(8)
    filled(pool, [1, 1, 1, 1, 7, 7, 7, 7])
    assert BlockTable(pool, 4).find_prefix([2, 2, 2, 2, 7, 7, 7, 7, 0]) == []


def test_a_shared_block_is_copied_before_it_is_written() -> None:
    pool = BlockPool(4)
    table = BlockTable(pool, 4)
    table.reserve(0, 6)
    other = table.fork()
    copy = other.reserve(6, 1)
    assert copy == (table.blocks[1], other.blocks[1])
    assert table.blocks[0] == other.blocks[0]
    assert table.reserve(6, 1) is None
    check(pool, [(table, 7), (other, 7)], block_tokens=4)


def test_a_pool_without_blocks_says_so() -> None:
    pool = BlockPool(1)
    pool.take()
    with pytest.raises(OutOfBlocks, match="all 1 blocks"):
        pool.take()
    with pytest.raises(OutOfBlocks, match="held by none"):
        BlockPool(1).release(0)


def test_wrong_books_are_noticed() -> None:
    pool = BlockPool(4)
    table = BlockTable(pool, 4)
    table.reserve(0, 6)
    with pytest.raises(InvariantBroken, match="holders counted"):
        check(pool, [], block_tokens=4)
    table.fork()
    with pytest.raises(InvariantBroken):
        check(pool, [(table, 4), (table, 4)], block_tokens=4)


LAYOUT = KvLayout(layers=8, kv_heads=4, key_size=64, value_size=64, bytes_per_number=4)


def test_what_the_weights_and_the_largest_step_leave_becomes_blocks() -> None:
    size = size_cache(
        budget_bytes=300 * MIB,
        weight_bytes=116 * MIB,
        activation_bytes=20 * MIB,
        swap_bytes=64 * MIB,
        layout=LAYOUT,
        max_model_len=1024,
    )
    assert LAYOUT.token_bytes == 16_384
    assert size.device_blocks == 164 * MIB // (16 * 16_384)
    assert size.host_blocks == 64 * MIB // (16 * 16_384)
    assert any("656 blocks" in line for line in size.explain())


def test_a_budget_that_cannot_hold_one_sequence_is_refused_with_the_numbers() -> None:
    with pytest.raises(DoesNotFit, match=r"weights 116\.0 MiB \+ largest step 20\.0 MiB .* budget of 140\.0 MiB"):
        size_cache(
            budget_bytes=140 * MIB,
            weight_bytes=116 * MIB,
            activation_bytes=20 * MIB,
            swap_bytes=0,
            layout=LAYOUT,
            max_model_len=1024,
        )


def test_latent_attention_stores_its_values_once() -> None:
    layout = KvLayout(layers=1, kv_heads=1, key_size=576, value_size=512, values_in_keys=True, bytes_per_number=2)
    assert layout.token_bytes == 1152


def test_waste_is_what_no_token_uses() -> None:
    assert waste_fraction(60, 4, 16) == pytest.approx(1 - 60 / 64)
