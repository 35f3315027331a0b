"""Who held which GPU, from marks that may be lost, late or said twice."""

from __future__ import annotations

from slurm_power.sla.board import Window
from slurm_power.sla.spans import JobSpan, Mark, clipped, job_spans


def mark(wall_s: float, event: str, job_id: int | None = None, *, uuid: str = "GPU-a") -> Mark:
    return Mark(wall_s, "n1", uuid, event, job_id, None if job_id is None else 1000)


def ends(spans: list[JobSpan]) -> list[tuple[int, float, float | None]]:
    return [(span.job_id, span.begin_wall_s, span.end_wall_s) for span in spans]


def test_a_job_holds_its_gpu_from_begin_to_end() -> None:
    marks = [mark(30, "end", 7), mark(10, "begin", 7), mark(20, "held", 7)]
    assert ends(job_spans(marks)) == [(7, 10, 30)]


def test_a_lost_end_is_the_next_mark_that_names_somebody_else() -> None:
    assert ends(job_spans([mark(10, "begin", 7), mark(20, "begin", 8)])) == [(7, 10, 20), (8, 20, None)]
    assert ends(job_spans([mark(10, "begin", 7), mark(20, "free")])) == [(7, 10, 20)]


def test_a_lost_begin_is_the_first_mark_that_names_the_job() -> None:
    assert ends(job_spans([mark(10, "held", 7), mark(20, "end", 7)])) == [(7, 10, 20)]


def test_a_late_end_of_an_earlier_job_ends_nobody_else() -> None:
    marks = [mark(10, "begin", 7), mark(20, "begin", 8), mark(21, "end", 7), mark(30, "end", 8)]
    assert ends(job_spans(marks)) == [(7, 10, 20), (8, 20, 30)]


def test_attempts_of_a_requeued_job_are_spans_of_their_own_on_whatever_gpu() -> None:
    marks = [
        mark(10, "begin", 7),
        mark(20, "end", 7),
        mark(40, "begin", 7, uuid="GPU-b"),
        mark(50, "end", 7, uuid="GPU-b"),
    ]
    assert [(span.uuid, span.begin_wall_s, span.end_wall_s) for span in job_spans(marks)] == [
        ("GPU-a", 10, 20),
        ("GPU-b", 40, 50),
    ]


def test_only_what_lies_in_the_period_is_left_and_what_runs_ends_with_it() -> None:
    spans = job_spans(
        [mark(10, "begin", 7), mark(20, "end", 7), mark(30, "begin", 8), mark(5, "begin", 9, uuid="GPU-b")]
    )
    assert ends(clipped(spans, Window(15, 40))) == [(9, 15, 40), (7, 15, 20), (8, 30, 40)]
