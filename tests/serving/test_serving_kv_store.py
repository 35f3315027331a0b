"""The cache's memory: what is written is found, moves carry whole blocks, nothing is allocated later."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from job_wrappers.serving.errors import DoesNotFit  # noqa: E402
from job_wrappers.serving.kv.layout import KvLayout  # noqa: E402
from job_wrappers.serving.kv.store import KvStore  # noqa: E402
from tests.serving.paged_steps import Shape, make_store, moves  # noqa: E402

pytestmark = pytest.mark.torch

PLAIN = Shape(kv_heads=2, key_size=8, value_size=6, block_tokens=4)
LATENT = Shape(kv_heads=1, key_size=8, value_size=6, values_in_keys=True, block_tokens=4)


def numbered(store: KvStore) -> KvStore:
    """Each block of each layer holds numbers of its own."""
    for index, layer in enumerate(store.layers()):
        for block in range(store.device_blocks):
            layer.keys[block] = 100 * index + block
            if not layer.values_in_keys:
                layer.values[block] = -(100 * index + block)
    return store


def content(store: KvStore, index: int = 0) -> list[float]:
    return store.layer(index).keys[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("shape", [PLAIN, LATENT], ids=["plain", "latent"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_written_token_is_found_in_its_slot_and_nowhere_else(shape, dtype):
    store = make_store(shape, blocks=5, dtype=dtype, layers=3)
    keys = torch.randn(3, shape.kv_heads, shape.key_size).to(dtype)
    values = None if shape.values_in_keys else torch.randn(3, shape.kv_heads, shape.value_size).to(dtype)

    store.layer(1).write(keys, values, torch.tensor([3, 4, 18]))

    layer = store.layer(1)
    for row, (block, offset) in enumerate([(0, 3), (1, 0), (4, 2)]):
        assert torch.equal(layer.keys[block, :, offset], keys[row])
        assert torch.equal(layer.values[block, :, offset], keys[row, :, :6] if values is None else values[row])
    assert torch.count_nonzero(layer.keys) == torch.count_nonzero(keys)
    assert not any(torch.count_nonzero(store.layer(other).keys) for other in (0, 2))


def test_keys_of_a_view_are_written_as_well_as_compact_ones():
    store, both = make_store(PLAIN, blocks=2), torch.randn(2, 4, 8)
    store.layer(0).write(both[:, :2], both[:, 2:, :6], torch.tensor([7, 0]))
    assert torch.equal(store.layer(0).keys[1, :, 3], both[0, :2])
    assert torch.equal(store.layer(0).values[0, :, 0], both[1, 2:, :6])


def test_numbers_are_stored_in_the_dtype_of_the_cache():
    store, keys = make_store(PLAIN, blocks=1, dtype=torch.bfloat16), torch.randn(1, 2, 8)
    store.layer(0).write(keys, keys[..., :6], torch.tensor([0]))
    assert torch.equal(store.layer(0).keys[0, :, 0], keys[0].bfloat16())


def test_writing_nothing_is_allowed():
    make_store(PLAIN, blocks=1).layer(0).write(
        torch.empty(0, 2, 8), torch.empty(0, 2, 6), torch.empty(0, dtype=torch.long)
    )


@pytest.mark.parametrize("shape", [PLAIN, LATENT], ids=["plain", "latent"])
def test_swapped_blocks_come_back_whole_in_other_places(shape):
    store = numbered(make_store(shape, blocks=6, layers=2, host_blocks=4))
    store.move(moves(swap_out=[(1, 0), (2, 1), (5, 3)]))
    for layer in store.layers():
        layer.keys.fill_(-7)

    store.move(moves(swap_in=[(0, 4), (1, 0), (3, 2)]))

    assert content(store, 0) == [2, -7, 5, -7, 1, -7]
    assert content(store, 1) == [102, -7, 105, -7, 101, -7]
    if not shape.values_in_keys:
        assert store.layer(1).values[4].eq(-101).all()


def test_moves_are_done_out_first_then_in_then_copies():
    store = numbered(make_store(PLAIN, blocks=4, host_blocks=2))
    store.move(moves(swap_out=[(3, 1)]))
    store.move(moves(swap_out=[(0, 0)], swap_in=[(1, 0)], copies=[(0, 1), (1, 2)]))
    assert content(store) == [3, 3, 3, 3]
    store.move(moves(swap_in=[(0, 2)]))
    assert content(store) == [3, 3, 0, 3]


def test_a_copy_leaves_the_shared_block_as_it_was():
    store = numbered(make_store(PLAIN, blocks=3))
    store.move(moves(copies=[(2, 0)]))
    store.layer(0).keys[0] = 50
    assert content(store) == [50, 1, 2]


def test_bytes_are_those_of_the_layout():
    store = make_store(PLAIN, blocks=3, layers=2, host_blocks=1)
    assert store.layout.block_bytes == 2 * 2 * 4 * (8 + 6) * 4
    assert store.layer(0).keys.untyped_storage().nbytes() == 3 * store.layout.block_bytes


def test_copy_speed_is_measured_where_there_is_a_host_pool():
    assert make_store(PLAIN, blocks=4, host_blocks=4).measure_copy_bytes_per_s() > 0
    assert make_store(PLAIN, blocks=4).measure_copy_bytes_per_s() is None


def test_more_memory_than_there_is_is_a_clear_refusal():
    layout = KvLayout(layers=1, kv_heads=1, key_size=1 << 20, value_size=1 << 20, bytes_per_number=4)
    with pytest.raises(DoesNotFit, match=r"4194304 blocks of 134,217,728 bytes cannot be had on cpu"):
        KvStore(layout, device_blocks=1 << 22, host_blocks=0, device="cpu", dtype=torch.float32)


def test_a_freed_store_holds_no_memory():
    store = make_store(PLAIN, blocks=3, host_blocks=2)
    store.free()
    assert (store.device_blocks, store.host_blocks, store.layers()) == (0, 0, [])
