"""The demo's outcome on paper: frozen keys, three plots, and text of others made harmless."""

from __future__ import annotations

import json
from pathlib import Path

from slurm_power.demo.figures import GridFigures, JobFigures
from slurm_power.demo.report import write_html, write_json
from slurm_power.demo.result import JobSpan, RunResult
from slurm_power.ess.bill import BilledInterval
from slurm_power.testing.simulated_site.plant import Truth


def result(label: str, *, peak_watts: float) -> RunResult:
    intervals = (BilledInterval(0.0, 5.0, 5.0 * peak_watts), BilledInterval(5.0, 5.0, 5.0 * 1000.0))
    return RunResult(
        label=label,
        start_wall_s=0.0,
        day_s=100.0,
        grid=GridFigures(peak_watts, 1e5, 10.0, 20.0, 30.0, 0.5, intervals),
        jobs=JobFigures(1, 1, 0, 1, 0, 0, 0, {"firm": 0.0, "flexible": 2.0}, {"firm": 0.0, "flexible": 4.0}),
        rows=(
            Truth(0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 100.0),
            Truth(5.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 9.0, 50.0),
        ),
        spans=(JobSpan("flexible-short-01", "flexible", 2, 1.0, 3.0, 9.0, True, False, True),),
        targets=((0.0, 900.0),),
        decisions=(
            {"wall_s": 1.0, "verb": "cap", "subject": "job 7", "reason": "<script>alert(1)</script>", "failure": ""},
            {"wall_s": 2.0, "verb": "create", "subject": "reservation x", "reason": "peak", "failure": "refused"},
        ),
    )


def test_the_json_holds_exactly_the_promised_keys_for_both_runs(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    write_json(file, result("unmanaged", peak_watts=2000.0), result("managed", peak_watts=1500.0), about={"seed": 3})
    content = json.loads(file.read_text())
    promised = {
        "peak_grid_watts",
        "bill_total",
        "energy_grid_joules",
        "battery_cycles",
        "jobs_finished",
        "jobs_lost",
        "firm_jobs_affected",
    }
    assert promised <= set(content["unmanaged"])
    assert set(content["unmanaged"]) == set(content["managed"])
    assert content["peak_cut_fraction"] == 0.25


def test_the_page_is_self_contained_and_draws_three_plots(tmp_path: Path) -> None:
    file = tmp_path / "demo-report.html"
    write_html(file, result("unmanaged", peak_watts=2000.0), result("managed", peak_watts=1500.0), about={"seed": 3})
    page = file.read_text()
    assert page.count("<svg") == 3
    assert "25.0% lower" in page
    assert "refused" in page
    for outside in ("<link", "<script", 'src="http', "@import"):
        assert outside not in page
