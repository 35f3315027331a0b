"""The report's JSON is frozen, and so are what it says of five made-up jobs. `python -m tests.sla.test_report` writes
the golden files anew; look at the difference before it is committed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slurm_power.sla.gpu_tally import GpuFigures
from slurm_power.sla.report import Scope, make_report, report_json, samples_sha256
from slurm_power.sla.sample import GpuMoment
from slurm_power.sla.thresholds import QualityThresholds
from tests.sla.made_up import BEGIN_S, busy, capped, figures, hot, jittering, starved

GOLDEN = Path(__file__).parent / "golden"
LENGTH_S = 900
FATES: dict[str, Callable[[int], GpuMoment]] = {
    "clean": busy,
    "capped_by_the_operator": capped,
    "capped_by_the_user": lambda second: capped(second, source="user", watts=300.0),
    "overheating": lambda second: hot(second) if second >= 600 else busy(second),
    "clock_jitter": jittering,
    "starved": starved,
    "half_unknown": lambda second: busy(second if second < 400 else second + 500),
}


def fate(name: str) -> dict[str, Any]:
    """Two GPUs: one of this fate, one clean."""
    return content(
        [figures(map(FATES[name], range(LENGTH_S))), figures(map(busy, range(LENGTH_S)), uuid="GPU-made-up-1")]
    )


def content(gpus: list[GpuFigures]) -> dict[str, Any]:
    end_s = max(gpu.windows[-1].end_wall_s for gpu in gpus)
    scope = Scope(
        kind="job", job_id=7, user="ann", account="physics", since_wall_s=BEGIN_S, until_wall_s=end_s, jobs=(7,)
    )
    return report_json(make_report(scope, gpus, QualityThresholds()), made_wall_s=BEGIN_S + 5000, made_by="a test")


def text(name: str) -> str:
    return json.dumps(fate(name), indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("name", FATES)
def test_a_report_says_what_it_always_said(name: str) -> None:
    assert json.loads((GOLDEN / f"{name}.json").read_text()) == json.loads(text(name))


@pytest.mark.parametrize("name", ["capped_by_the_operator", "capped_by_the_user"])
def test_the_customer_of_a_capped_job_is_not_told_that_the_infrastructure_failed(name: str) -> None:
    report = fate(name)
    assert report["verdict"] == "pass"
    assert {quadrant["verdict"] for quadrant in report["quadrants"].values()} == {"pass"}
    assert "no fault" in report["quadrants"]["throttling"]["sentence"]
    assert "check" not in json.dumps(report["quadrants"])


def test_a_report_of_nothing_known_says_so() -> None:
    report = fate("half_unknown")
    assert report["verdict"] == "pass"  # by the other GPU
    assert report["gpus"][0]["clock"]["verdict"] == "not enough data"
    assert "Of 1 more of 2 GPUs too little is known." in report["quadrants"]["clock"]["sentence"]
    assert report["gpus"][0]["data"]["gaps"] == [
        {"since": "2027-01-15T08:06:39.000+00:00", "until": "2027-01-15T08:15:00.000+00:00"}
    ]


def test_the_hash_of_the_samples_changes_with_any_reading_and_not_with_the_order_of_gpus() -> None:
    one, other = figures(map(busy, range(10))), figures(map(hot, range(10)), uuid="GPU-made-up-1")
    changed = figures(busy(second, draw_watts=610.001 if second == 5 else 610.0) for second in range(10))
    assert samples_sha256([one, other]) == samples_sha256([other, one])
    assert samples_sha256([one, other]) != samples_sha256([changed, other])


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for name in FATES:
        (GOLDEN / f"{name}.json").write_text(text(name))


if __name__ == "__main__":
    main()
