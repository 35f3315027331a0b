"""Parts of tensors: who writes them, and how any other cut is put together again."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.checkpoint.boxes import Box, parts_of
from training.errors import StorageError


def rows(name: str, total: int, cuts: list[int], *, columns: int = 3) -> list[Box]:
    edges = sorted({0, total, *cuts})
    return [Box(name, "master", (total, columns), (a, 0), (b - a, columns)) for a, b in pairwise(edges)]


@given(
    total=st.integers(1, 30),
    written=st.lists(st.integers(0, 30), max_size=5),
    wanted=st.lists(st.integers(0, 30), max_size=5),
)
def test_any_cut_is_put_together_from_any_other(total: int, written: list[int], wanted: list[int]):
    whole = np.arange(total * 3).reshape(total, 3)
    stored = rows("w", total, [min(cut, total) for cut in written])
    for box in rows("w", total, [min(cut, total) for cut in wanted]):
        result = np.full(box.shape, -1)
        for piece, part in parts_of(box, {("w", "master"): stored}):
            values = whole[piece.start[0] : piece.start[0] + piece.shape[0]]
            result[part.inside(box)] = values[part.inside(piece)]
        assert (result == whole[box.start[0] : box.start[0] + box.shape[0]]).all()


def test_what_is_missing_is_named():
    half = rows("w", 8, [4])[:1]
    whole = Box("w", "master", (8, 3), (0, 0), (8, 3))
    with pytest.raises(StorageError, match=r"^w: master is stored only in part$"):
        parts_of(whole, {("w", "master"): half})
    with pytest.raises(StorageError, match=r"^w: no master stored$"):
        parts_of(whole, {})
    with pytest.raises(StorageError, match=r"^w: stored as \[8, 3\], the model needs \[9, 3\]$"):
        parts_of(Box("w", "master", (9, 3), (0, 0), (9, 3)), {("w", "master"): half})


def test_keys_of_parts_differ_and_a_whole_tensor_has_a_plain_one():
    one, other = rows("w", 8, [4])
    assert one.key == "master/w@0,0"
    assert other.key == "master/w@4,0"
    assert rows("w", 8, [])[0].key == "master/w"
