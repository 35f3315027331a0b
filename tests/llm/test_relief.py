"""When an instance whose job has a time limit is relieved."""

from __future__ import annotations

import pytest

from slurm_power.llm.relief import leaves_soon


@pytest.mark.parametrize(
    ("left_s", "limit_s", "leaves"),
    [
        pytest.param(None, None, False, id="no-end"),
        pytest.param(301.0, 3600.0, False, id="time-enough"),
        pytest.param(299.0, 3600.0, True, id="a-relief-takes-as-long"),
        pytest.param(299.0, None, True, id="its-limit-is-not-known"),
        pytest.param(299.0, 400.0, False, id="a-short-limit-first-half"),
        pytest.param(199.0, 400.0, True, id="a-short-limit-second-half"),
    ],
)
def test_it_leaves_when_a_relief_takes_as_long_as_it_has(
    left_s: float | None, limit_s: float | None, leaves: bool
) -> None:
    assert leaves_soon(left_s, limit_s, notice_s=300.0) is leaves
