"""A run's report from a made-up run folder with two attempts, the first one killed."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from job_wrappers.train import train
from job_wrappers.training.attempts import AttemptBegin, AttemptEnd, AttemptFiles, Trace, find_run_folder, read_attempts
from job_wrappers.training.report import read_report
from job_wrappers.training.report_bubbles import replayed_bubble
from job_wrappers.training.report_figures import figures_of, p95
from job_wrappers.training.report_html import report_html
from tests.job_wrappers.step_records import step_record
from training.errors import ConfigError
from training.parallel.plan import ParallelPlan
from training.run.listener import RunEvent
from training.run.records import RecordFiles

START_S = 1.7e9
PLAN = ParallelPlan(pipeline=2, data=2, micro_sequences=1, micro_batches=4)
BEGIN = AttemptBegin(
    job_id=12,
    restart_count=0,
    nodes=("n1", "n2"),
    began_at_unix_s=START_S,
    trained_from_unix_s=START_S + 2,
    resumed_from_step=None,
    plan=asdict(PLAN),
    policy="fp8",
    model={"model_type": "deepseek_v3"},
    parameters=1_000_000,
    world_size=4,
    steps=20,
    global_sequences=8,
    sequence_length_tokens=128,
    peak_flops_per_s=1e15,
    bytes_formula_by_axis={"pipe": 4096.0, "data": 1e6},
)
END = AttemptEnd(
    ended_at_unix_s=START_S + 40, exit_code=0, reason="all steps done", step=20, gpus=4, used_joules=9000.0,
    energy_unknown=None,
)  # fmt: skip


def write_attempt(folder: Path, begin: AttemptBegin, end: AttemptEnd | None, trace: Trace) -> None:
    rows: Iterator[Trace] = iter([trace, []])
    files = AttemptFiles(folder, take_trace=lambda: next(rows))
    files.begin(begin)
    files.flush()
    if end is not None:
        files.end(end)


def write_steps(folder: Path, steps: range, *, from_s: float, plan_stages: int) -> None:
    """One step a second of 1024 tokens, the stages 0.8 and 0.6 of the time at work."""
    files = RecordFiles(folder)
    for number, step in enumerate(steps):
        files.on_step(
            step_record(
                step=step,
                loss=4.0 - 0.1 * step,
                step_s=1.0,
                micro_sequences=1,
                busy_fraction_by_stage=(0.8, 0.6)[:plan_stages],
                bytes_by_axis={"pipe": 9999.0 if number == 0 else 4096.0},
                model_flops_utilisation=0.25,
                ended_at_unix_s=from_s + 1.0 + number,
            )
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = tmp_path / "runs" / "small <b>"
    run.mkdir(parents=True)
    write_attempt(run, BEGIN, None, [(START_S + second, 100.0 * second) for second in range(16)])
    write_steps(run, range(1, 11), from_s=START_S + 2, plan_stages=2)
    again = replace(
        BEGIN,
        restart_count=1,
        began_at_unix_s=START_S + 20,
        trained_from_unix_s=START_S + 22,
        plan=asdict(ParallelPlan(data=4, micro_sequences=1, micro_batches=2)),
        resumed_from_step=10,
    )
    write_attempt(run, again, END, [(START_S + 20 + second, 200.0 * second) for second in range(21)])
    write_steps(run, range(11, 21), from_s=START_S + 22, plan_stages=1)
    event = RunEvent(kind="power_signal", text="SIGUSR1 <now>", step=10, at_unix_s=START_S + 12)
    RecordFiles(run).on_event(event)
    return run


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(train, ["report", *arguments], catch_exceptions=True)


def figures(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(invoke(str(folder), "--json").output)
    return loaded


def test_a_killed_attempt_counts_what_its_last_reading_said(folder: Path) -> None:
    first, second = figures(folder)["attempts"]
    assert (first["used_joules"], first["exit_code"]) == (1500.0, None)
    assert (second["used_joules"], second["exit_code"]) == (9000.0, 0)


def test_joules_per_token_are_those_of_the_steps_and_of_the_whole_run(folder: Path) -> None:
    found = figures(folder)
    first, second = found["attempts"]
    assert first["mean_watts"] == pytest.approx(100.0)
    assert first["joules_per_token"] == pytest.approx(100.0 / 1024)
    assert second["joules_per_token"] == pytest.approx(200.0 / 1024)
    assert found["joules_per_token"] == pytest.approx(10500.0 / (20 * 1024))


def test_the_bubble_is_told_in_three_ways(folder: Path) -> None:
    first, second = figures(folder)["attempts"]
    assert first["bubble_formula_fraction"] == pytest.approx(1 / 5)  # (2 - 1) / (4 + 2 - 1)
    assert first["bubble_measured_fraction"] == pytest.approx(0.3)
    # Stage 0 works 0.8 s and waits for the first gradient (1/12 s) and the last (1/60 s): a step of 0.9 s.
    assert first["bubble_replay_fraction"] == pytest.approx(1 - (0.8 + 0.6) / (2 * 0.9))
    assert (second["bubble_formula_fraction"], second["bubble_replay_fraction"]) == (0.0, pytest.approx(0.0))


def test_bytes_stand_beside_their_formula_without_the_first_step(folder: Path) -> None:
    first = figures(folder)["attempts"][0]
    data, pipe = first["traffic"]
    assert pipe == {"axis": "pipe", "measured_bytes": 4096.0, "formula_bytes": 4096.0, "measured_per_formula": 1.0}
    assert (data["axis"], data["measured_bytes"], data["formula_bytes"]) == ("data", None, 1e6)


def test_equal_stages_replay_to_the_formula() -> None:
    steps = [step_record(busy_fraction_by_stage=(0.5, 0.5), step_s=1.0)]
    for schedule, micro_batches in (("1f1b", 4), ("dualpipev", 8)):
        plan = ParallelPlan(pipeline=2, micro_batches=micro_batches, schedule=schedule)
        assert replayed_bubble(plan, steps) == pytest.approx(plan.bubble_fraction())


def test_the_table_names_units_zones_and_what_is_unknown(folder: Path) -> None:
    output = invoke(str(folder)).output
    assert "all steps done" in output
    assert re.search(r"Energy, lost work included +│ 10\.5 kJ", output)
    assert re.search(r"Loss, held-out text +│ unknown: no held-out text was evaluated", output)
    assert re.search(r"Began +│ 2023-11-1\d \d\d:\d\d:\d\d \w+", output)


def test_the_page_stands_alone_and_escapes_what_others_named(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    assert invoke(str(folder), "--html", str(target)).exit_code == 0
    text = target.read_text()
    assert text.count("<svg") == 5, "four plots of curves and one pipeline"
    assert "small &lt;b&gt;" in text
    assert "SIGUSR1 &lt;now&gt;" in text
    outside = [found for found in re.findall(r'(?:src|href)="([^"]+)"', text) if not found.startswith("#")]
    assert outside == []
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ET.fromstring(svg)


def test_a_run_without_energy_says_why(folder: Path) -> None:
    (folder / "energy.jsonl").unlink()
    lines = (folder / "attempts.jsonl").read_text().splitlines()
    end = json.loads(lines[-1]) | {"used_joules": None, "energy_unknown": "no rank knows of a GPU"}
    (folder / "attempts.jsonl").write_text("\n".join([*lines[:-1], json.dumps(end), ""]))
    report = read_report(folder)
    assert report.figures.used_joules is None
    assert report.figures.unknown["used_joules"] == "attempt 1: no energy counter was read"
    assert "Power and energy are unknown: no energy counter was read; no rank knows of a GPU." in report_html(report)


def test_a_job_id_leads_to_its_run_folder(folder: Path, tmp_path: Path) -> None:
    assert find_run_folder("12", tmp_path) == folder
    assert find_run_folder("12", folder.parent) == folder
    assert find_run_folder("runs/small <b>", tmp_path) == folder
    for wrong in ("13", "nowhere"):
        with pytest.raises(ConfigError, match=f"= {wrong}: "):
            find_run_folder(wrong, tmp_path)


def test_the_slowest_steps_show_beside_the_median(folder: Path) -> None:
    assert p95([1.0, 9.0]) == 9.0
    assert p95([float(value) for value in range(1, 101)]) == 95.0
    assert p95([]) is None
    found = figures_of(folder)
    assert (found.step_s, found.step_s_p95, found.tokens_per_s) == (1.0, 1.0, 2048.0)


def test_waiting_ranks_are_taken_to_draw_what_they_drew_before_the_first_step(folder: Path) -> None:
    first, second = figures_of(folder).attempts
    assert (first.standing_watts, second.standing_watts) == (100.0, 200.0)
    assert first.bubble_energy_fraction == pytest.approx(0.3)  # no more and no less power than when it computes
    assert second.bubble_energy_fraction == pytest.approx(0.2)


def test_steps_that_are_not_told_count_too(folder: Path) -> None:
    lines = (folder / "steps.jsonl").read_text().splitlines()
    (folder / "steps.jsonl").write_text("".join(f"{line}\n" for line in lines if json.loads(line)["step"] % 5 == 0))
    found = figures_of(folder)
    assert (found.steps, found.tokens) == (20, 20 * 1024)
    assert [attempt.steps for attempt in found.attempts] == [10, 10]
    assert found.attempts[0].joules_per_token == pytest.approx(100.0 / 1024)
    assert found.attempts[0].bubble_energy_fraction == pytest.approx(0.3)
    assert found.attempts[0].traffic[1].measured_bytes == 4096.0


def test_an_attempt_that_made_no_step_says_so(tmp_path: Path) -> None:
    write_attempt(tmp_path, BEGIN, None, [])
    found = figures_of(tmp_path)
    assert (found.steps, found.step_s, found.used_joules) == (0, None, None)
    assert found.unknown["step_s"] == "no step was made"
    assert found.attempts[0].unknown["bubble_measured_fraction"] == "no step was made"
    assert "No step was made, so there are no curves." in report_html(read_report(tmp_path))


def test_a_utilisation_without_a_peak_is_unknown(tmp_path: Path) -> None:
    write_attempt(tmp_path, replace(BEGIN, peak_flops_per_s=None), None, [])
    RecordFiles(tmp_path).on_step(step_record(ended_at_unix_s=START_S + 5, model_flops_utilisation=None))
    assert figures_of(tmp_path).unknown["model_flops_utilisation"] == "no peak is stated: [run] peak_flops_per_s"


def test_a_folder_without_a_run_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run has begun there"):
        read_report(tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        read_report(tmp_path / "nowhere")


def test_steps_without_the_facts_of_their_run_are_refused(folder: Path) -> None:
    (folder / "attempts.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"there is no attempts\.jsonl beside its steps"):
        read_report(folder)


@pytest.mark.parametrize("name", ["steps.jsonl", "attempts.jsonl", "events.jsonl", "energy.jsonl"])
def test_a_file_that_cannot_be_read_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()  # a mode does not keep root out
    with pytest.raises(ConfigError, match=rf"{name}: Is a directory"):
        read_report(folder)


@pytest.mark.parametrize("name", ["steps.jsonl", "attempts.jsonl", "events.jsonl"])
def test_a_file_of_another_version_is_one_clear_line(folder: Path, name: str) -> None:
    with (folder / name).open("a") as file:
        file.write('{"attempt": 3, "colour": "red"}\n')
    with pytest.raises(ConfigError, match="written by another version of slurm-power-train"):
        read_report(folder)


def test_a_line_torn_by_a_crash_is_passed_over_and_counted(folder: Path) -> None:
    with (folder / "attempts.jsonl").open("a") as file:
        file.write('{"attempt": 3, "began_at')
    with (folder / "steps.jsonl").open("a") as file:
        file.write('{"step": 21, "lo\n')
    assert len(read_attempts(folder)) == 2
    assert (figures_of(folder).steps, figures_of(folder).torn_lines) == (20, 2)
    assert "2, left out" in invoke(str(folder)).output
