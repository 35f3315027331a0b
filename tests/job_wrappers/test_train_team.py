"""Real processes meet without a fixed port, and torch.distributed joins the store that stands already."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("deepspeed")  # the ranks are forked from a process that has it

from tests.job_wrappers.team_rank import meet_and_add  # noqa: E402
from tests.training.ranks import run_ranks  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("world_size", [1, 3])
def test_ranks_meet_add_up_and_rank_0_leaves_last(world_size: int) -> None:
    results = run_ranks(meet_and_add, world_size, world_size, f"team-{world_size}")
    assert [total for total, _, _ in results] == [world_size * (world_size + 1) / 2] * world_size
    assert results[0][1] == list(range(world_size)), "rank 0 heard everybody's joules before it left"
    assert {interface for _, _, interface in results} == {"lo"}
