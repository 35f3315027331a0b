"""The last hours in buckets: means of what was known, gaps where nothing was."""

from __future__ import annotations

from slurm_power.monitoring.trail import Trail


def trail() -> Trail:
    return Trail(["a", "b"], bucket_s=10.0, keep_s=50.0)


def test_a_bucket_is_the_mean_of_what_was_known_in_it() -> None:
    one = trail()
    for wall_s, a in ((100.0, 1.0), (104.0, 3.0), (108.0, None)):
        one.add(wall_s, {"a": a})
    one.add(110.0, {"a": 9.0, "b": 7.0})
    assert one.columns() == {"wall_s": [105.0], "a": [2.0], "b": [None]}


def test_a_silence_is_a_row_of_unknowns() -> None:
    one = trail()
    for wall_s in (100.0, 110.0, 150.0, 160.0):
        one.add(wall_s, {"a": 1.0})
    columns = one.columns()
    assert columns["wall_s"] == [105.0, 115.0, 125.0, 155.0]
    assert columns["a"] == [1.0, 1.0, None, 1.0]


def test_only_so_much_is_kept() -> None:
    one = trail()
    for step in range(1000):
        one.add(step * 10.0, {"a": 1.0})
    assert len(one.columns()["wall_s"]) == 5


def test_a_clock_that_steps_back_loses_nothing_and_breaks_no_order() -> None:
    one = trail()
    for wall_s in (100.0, 110.0, 95.0, 120.0):
        one.add(wall_s, {"a": wall_s})
    times = one.columns()["wall_s"]
    assert times == sorted(times)  # type: ignore[type-var]
    assert one.columns()["a"] == [100.0, (110.0 + 95.0) / 2]
