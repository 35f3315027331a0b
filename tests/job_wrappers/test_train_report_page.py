"""The report of a whole made-up run, as a page, as JSON and on a narrow terminal."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from job_wrappers.training.report import Report, print_report, read_report, report_json
from job_wrappers.training.report_bubbles import DRAWN_MICRO_BATCHES, drawn_step
from job_wrappers.training.report_html import report_html, write_html
from job_wrappers.training.report_timeline import caption, timeline_plot
from slurm_power.cli.report_style import PALETTE
from tests.job_wrappers.made_up_run import write_run
from tests.job_wrappers.step_records import step_record
from training.errors import StorageError
from training.parallel.plan import ParallelPlan

RUN_KEYS = (
    "attempts", "first_loss", "folder", "held_out_loss", "held_out_step", "joules_per_token", "last_loss",
    "micro_batch_changes", "model_flops_utilisation", "planned_steps", "restarts", "step_s", "step_s_p95", "steps",
    "tokens", "tokens_per_s", "torn_lines", "unknown", "used_joules",
)  # fmt: skip
ATTEMPT_KEYS = (
    "began_at_unix_s", "bubble_energy_fraction", "bubble_formula_fraction", "bubble_measured_fraction",
    "bubble_replay_fraction", "ended_at_unix_s", "exit_code", "job_id", "joules_per_token", "mean_watts",
    "micro_batches", "micro_sequences", "model_flops_utilisation", "nodes", "number", "parameters", "pause_s",
    "peak_flops_per_s", "plan", "policy", "reason", "restart_count", "resumed_from_step", "standing_watts", "step_s",
    "step_s_p95", "steps", "tokens", "tokens_per_s", "traffic", "unknown", "used_joules", "world_size",
)  # fmt: skip
AXIS_KEYS = ("axis", "formula_bytes", "measured_bytes", "measured_per_formula")
CHANGE_KEYS = (
    "at_unix_s", "effect_s", "sequences_after", "sequences_before", "step", "step_s_after", "step_s_before",
    "watts_after", "watts_before",
)  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("runs") / "run <a>"
    folder.mkdir()
    write_run(folder)
    return read_report(folder)


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return report_html(report)


def keys(value: Any) -> tuple[str, ...]:
    return tuple(sorted(value))


def test_the_keys_of_the_json_stay(report: Report) -> None:
    found = json.loads(json.dumps(report_json(report), allow_nan=False))
    assert keys(found) == RUN_KEYS
    assert keys(found["attempts"][0]) == ATTEMPT_KEYS
    assert keys(found["attempts"][0]["plan"]) == keys(asdict(ParallelPlan()))
    assert keys(found["attempts"][1]["traffic"][0]) == AXIS_KEYS
    assert keys(found["micro_batch_changes"][0]) == CHANGE_KEYS


def test_a_changed_micro_batch_tells_its_time_to_effect_and_its_watts(report: Report) -> None:
    (change,) = report.figures.micro_batch_changes
    assert (change.sequences_before, change.sequences_after, change.effect_s) == (2, 1, 1.2)
    assert change.watts_after == pytest.approx(1500.0)
    # 30 s before it was asked for reach back into the ramp of 1100 W.
    assert 2000.0 < (change.watts_before or 0.0) < 2100.0


def test_bytes_and_bubbles_are_those_of_most_steps(report: Report) -> None:
    first, second = report.figures.attempts
    assert (first.micro_sequences, first.micro_batches) == (2, 8)
    assert [round(axis.measured_per_formula or 0.0, 4) for axis in second.traffic] == [1.0004] * 3
    assert [axis.axis for axis in second.traffic] == ["data", "expert", "pipe"], "a silent axis is left out"
    assert first.bubble_formula_fraction < (first.bubble_replay_fraction or 0.0) < (first.bubble_measured_fraction or 0)


def test_the_page_asks_nobody_for_anything(page: str) -> None:
    assert re.findall(r'(?:src|href)="(?!#)', page) == []
    assert re.findall(r"url\((?!#)|@import|<script|<link", page) == []


def test_the_page_is_whole_and_escapes_what_others_named(page: str) -> None:
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ET.fromstring(svg)
    assert page.count("<svg") == 6, "four plots of curves, and a pipeline for each plan"
    assert "run &lt;a&gt;" in page
    assert "save &lt;and&gt; leave" in page
    assert "fp8 on the wire" in page
    assert "pipeline 4 x tensor 1 x data 1" in page
    assert re.search(r"<td>2023-11-1\d \d\d:\d\d:\d\d \S+</td>", page), "times have their zone"


def test_the_pictures_take_the_colours_of_the_page(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    used = set(re.findall(r"var\(--(\w+)\)", page))
    assert used <= PALETTE.keys(), "a variable that no palette defines would draw in black"
    assert {"ink", "first", "second"} <= used
    assert "#0102" not in page


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_loses_nothing(report: Report, width: int) -> None:
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=width, highlight=False, markup=False))
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text


def test_a_pipeline_with_very_many_micro_batches_is_drawn_with_some() -> None:
    steps = [step_record(busy_fraction_by_stage=(0.9, 0.9), step_s=10.0)]
    drawn = drawn_step(ParallelPlan(pipeline=2, micro_batches=512), steps)
    assert drawn is not None
    assert len(drawn.replay.intervals[0]) == 2 * DRAWN_MICRO_BATCHES
    assert "Drawn with 24 of 512 micro-batches" in caption(drawn)


def test_both_ways_of_dualpipev_are_drawn() -> None:
    steps = [step_record(busy_fraction_by_stage=(0.9, 0.8), step_s=1.0)]
    drawn = drawn_step(ParallelPlan(pipeline=2, micro_batches=4, schedule="dualpipev"), steps)
    assert drawn is not None
    svg = timeline_plot(drawn)
    assert {"var(--first)", "var(--second)", "var(--third)", "var(--fourth)"} <= set(re.findall(r"var\(--\w+\)", svg))


def test_without_a_pipeline_there_is_nothing_to_draw() -> None:
    assert drawn_step(ParallelPlan(data=4), [step_record(busy_fraction_by_stage=(0.9,))]) is None
    assert drawn_step(ParallelPlan(pipeline=2), [step_record(busy_fraction_by_stage=(0.9, 0.0))]) is None


def test_a_page_that_cannot_be_written_is_one_clear_line(report: Report, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file or directory"):
        write_html(report, tmp_path / "nowhere" / "report.html")
