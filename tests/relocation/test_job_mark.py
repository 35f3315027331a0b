from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.relocation.job_mark import JobMark, parse_mark, with_mark, without_actions
from slurm_power.relocation.jobs import PowerClass, PowerRequest

WATTS = st.one_of(st.none(), st.floats(0.0, 1e6).map(lambda x: round(x, 3)))


@given(
    cap=WATTS,
    power_class=st.one_of(st.none(), st.sampled_from(PowerClass)),
    delay=WATTS,
    deferred=WATTS,
    capped=WATTS,
    drawn=WATTS,
    requeued=st.integers(0, 9),
    before=st.one_of(st.none(), st.integers(0, 10**6)),
)
def test_a_mark_is_read_back_as_it_was_written(
    cap: float | None,
    power_class: PowerClass | None,
    delay: float | None,
    deferred: float | None,
    capped: float | None,
    drawn: float | None,
    requeued: int,
    before: int | None,
) -> None:
    request = PowerRequest(gpu_cap_watts=cap, power_class=power_class, max_delay_s=delay)
    mark = JobMark(request, deferred, capped, requeued, before, drawn)
    assert parse_mark(with_mark("", mark)) == mark


def test_others_words_in_the_comment_are_kept() -> None:
    comment = "ticket 77 slurm-power:class=firm urgent"
    changed = with_mark(comment, JobMark(PowerRequest(power_class=PowerClass.FLEXIBLE)))
    assert "ticket 77" in changed
    assert "urgent" in changed
    assert changed.count("slurm-power:") == 1
    assert parse_mark(changed).request.power_class is PowerClass.FLEXIBLE


@pytest.mark.parametrize("comment", ["", "slurm-power:", "slurm-power:class=royal", "slurm-power:cap=x;rm -rf"])
def test_what_cannot_be_read_is_absent(comment: str) -> None:
    assert parse_mark(comment) == JobMark()


def test_giving_back_forgets_what_we_did_but_not_what_the_user_asked() -> None:
    request = PowerRequest(power_class=PowerClass.PREEMPTIBLE, max_delay_s=60.0)
    assert without_actions(JobMark(request, 5.0, 300.0, 1, 900, 650.0)) == JobMark(request, requeued=1)
