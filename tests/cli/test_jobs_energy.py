"""slurm-power jobs energy, as a user calls it, over what two nodes' agents have written."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from slurm_power.adapters.telemetry_sqlite import SqliteStore
from slurm_power.cli.jobs import jobs
from slurm_power.daemons.node_agent_views import allocation_point, node_energy_point
from slurm_power.monitoring.energy import Used
from slurm_power.monitoring.energy_marks import Count
from slurm_power.ports.telemetry_store import Point

T0 = 1_790_000_000.0
HOUR_S = 3600.0


def mark(
    gpu: int, at_s: float, event: str, joules: float, *, job_id: int | None = None, integrated: float = 0.0
) -> Point:
    return allocation_point(
        f"GPU-{gpu}",
        job_id=job_id,
        uid=None if job_id is None else 60_000 + job_id,
        event=event,
        node_name="n1",
        wall_s=T0 + at_s,
        count=Count(T0, at_s, Used(joules - integrated, integrated), None),
    )


def known(job_id: int, user: str, account: str, at_s: float) -> Point:
    texts = {
        "user_name": user,
        "account": account,
        "job_name": f"train\x1b[2J{job_id}",
        "partition": "main",
        "state": "RUNNING",
    }
    return Point("job", T0 + at_s, {"job_id": job_id, **texts})


def every_quarter(gpu: int, from_s: float, to_s: float, joules: float, watts: float, job_id: int | None) -> list[Point]:
    """What the agent says in between, from time to time."""
    event = "free" if job_id is None else "held"
    times = range(int(from_s) + 900, int(to_s), 900)
    return [mark(gpu, at_s, event, joules + watts * (at_s - from_s), job_id=job_id) for at_s in times]


QUARTERS = range(0, 3 * 3600 + 1, 900)
POINTS = [
    *(
        node_energy_point(
            node_name="n1", wall_s=T0 + s, life_wall_s=T0, up_s=s, gpus=2, cpu_joules=100.0 * s, rest_joules=300.0 * s
        )
        for s in QUARTERS
    ),
    # GPU 0: job 7 of ann for an hour, requeued, an hour later again for an hour; 500 W, idle 100 W
    mark(0, 0.0, "begin", 0.0, job_id=7),
    *every_quarter(0, 0.0, HOUR_S, 0.0, 500.0, 7),
    mark(0, HOUR_S, "end", 500 * HOUR_S, job_id=7),
    *every_quarter(0, HOUR_S, 2 * HOUR_S, 500 * HOUR_S, 100.0, None),
    mark(0, 2 * HOUR_S, "begin", 600 * HOUR_S, job_id=7),
    *every_quarter(0, 2 * HOUR_S, 3 * HOUR_S, 600 * HOUR_S, 500.0, 7),
    mark(0, 3 * HOUR_S, "end", 1100 * HOUR_S, job_id=7),
    # GPU 1: job 8 of bob for three hours; 200 W, a quarter of it integrated
    *(
        mark(1, s, "end" if s == QUARTERS[-1] else "held" if s else "begin", 200.0 * s, job_id=8, integrated=50.0 * s)
        for s in QUARTERS
    ),
    known(7, "ann", "physics", 0.0),
    known(8, "=bob", "chemistry", 1.0),
]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", "/nonexistent")  # no sacct
    store = SqliteStore(tmp_path / "telemetry.db", retention_s=9e9)
    store.write(POINTS)
    store.write([Point("node", T0 + s, {"draw_watts": 1100.0}, {"node": "n1"}) for s in range(0, 10_801, 60)])
    store.close()
    file = tmp_path / "slurm-power.toml"
    file.write_text(
        f"""
        [store]
        path = "{tmp_path}/telemetry.db"
        [tariff]
        currency = "EUR"
        energy_prices = [{{ start_s = 0, price_per_kwh = 0.5 }}]
        demand_price_per_kw = 10
        [energy]
        intensity_grams_per_kwh = 400
        """
    )
    return file


def call(config: Path, *options: str) -> Result:
    period = ["--since", f"@{T0 - 60}", "--until", f"@{T0 + 4 * HOUR_S}"]
    result = CliRunner().invoke(jobs, ["energy", "--config", str(config), *period, *options], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    return result


def asked(config: Path, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(call(config, "--json", *options).output)
    return found


def test_a_jobs_attempts_are_listed_and_summed(config: Path) -> None:
    (job,) = asked(config, "--user", "ann")["jobs"]
    assert (job["job_id"], job["account"], len(job["attempts"])) == (7, "physics", 2)
    assert job["gpu_counted_joules"] == pytest.approx(1000 * HOUR_S)
    assert (job["cpu_joules"], job["rest_joules"]) == (pytest.approx(100 * HOUR_S), pytest.approx(300 * HOUR_S))
    assert job["joules"] == pytest.approx(1400 * HOUR_S)
    assert job["ran_s"] == pytest.approx(2 * HOUR_S)
    assert job["mean_watts"] == pytest.approx(700)
    assert [attempt["mean_watts"] for attempt in job["attempts"]] == [pytest.approx(700)] * 2


def test_money_and_carbon_follow_the_tariff_and_the_intensity(config: Path) -> None:
    (job,) = asked(config, "--job", "7")["jobs"]
    assert job["money"] == pytest.approx(1.4 * 0.5)
    assert job["carbon_grams"] == pytest.approx(1.4 * 400)


def test_jobs_idle_and_node_agree(config: Path) -> None:
    found = asked(config, "--check")
    total = sum(job["joules"] for job in found["jobs"]) + found["idle"]["joules"]
    assert total == pytest.approx(found["total_joules"])
    assert found["nodes_drew"]["joules"] == pytest.approx(1100 * 3 * HOUR_S, rel=0.01)
    assert found["total_joules"] == pytest.approx((1100 + 600 + 1200) * HOUR_S)
    assert found["idle"]["gpu_counted_joules"] == pytest.approx(100 * HOUR_S)


def test_only_what_lies_in_the_period_counts(config: Path) -> None:
    options = ["--json", "--since", f"@{T0 + HOUR_S}", "--until", f"@{T0 + 2.5 * HOUR_S}", "--config", str(config)]
    found = json.loads(CliRunner().invoke(jobs, ["energy", *options]).output)
    joules = {job["job_id"]: job["gpu_counted_joules"] + job["gpu_integrated_joules"] for job in found["jobs"]}
    assert joules == {7: pytest.approx(250 * HOUR_S), 8: pytest.approx(300 * HOUR_S)}


def test_sums_by_account(config: Path) -> None:
    sums = {row["account"]: row["joules"] for row in asked(config, "--by", "account")["jobs"]}
    assert sums == {"chemistry": pytest.approx(1200 * HOUR_S), "physics": pytest.approx(1400 * HOUR_S)}


def test_the_table_says_what_was_integrated_and_names_nobodys_energy(config: Path) -> None:
    output = call(config, "--attempts", "--check").output
    assert "job 8: 25.0% of the GPU energy is integrated power, not counted." in output
    assert "run 2" in output
    assert "nobody" in output
    assert "\x1b[2J" not in output


def test_csv_is_safe_in_a_spreadsheet(config: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(call(config, "--csv").output)))
    assert [row["user"] for row in rows] == ["ann", "'=bob"]
    assert float(rows[0]["joules"]) == pytest.approx(1400 * HOUR_S)


def test_without_a_tariff_cost_is_unknown_not_nothing(config: Path) -> None:
    text = config.read_text()
    config.write_text(text[: text.index("[tariff]")])
    (job,) = asked(config, "--user", "ann")["jobs"]
    assert (job["money"], job["carbon_grams"]) == (None, None)


def test_an_empty_period_is_one_clear_line(config: Path) -> None:
    result = CliRunner().invoke(jobs, ["energy", "--config", str(config), "--since", "1h", "--until", "2h"])
    assert "--since: must be before --until" in str(result.exception)


@pytest.mark.parametrize(("remainder", "joules"), [("share", 1400 * HOUR_S), ("apart", 1000 * HOUR_S)])
def test_a_jobs_total_is_written_back_with_all_its_attempts(config: Path, remainder: str, joules: float) -> None:
    config.write_text(f'{config.read_text()}\nnode_remainder = "{remainder}"\n')
    period = ["--since", f"@{T0 - 60}", "--until", f"@{T0 + 4 * HOUR_S}"]
    options = ["--config", str(config), "--to", "tres", "--dry-run", *period]
    result = CliRunner().invoke(jobs, ["write-back", "7", *options])
    assert result.output == f"job 7: would set TRES=energy={joules:.0f}\n"


def test_a_job_that_nobody_saw_is_not_written_back(config: Path) -> None:
    result = CliRunner().invoke(jobs, ["write-back", "99", "--config", str(config), "--to", "tres", "--dry-run"])
    assert "job 99: no agent saw it hold a GPU" in str(result.exception)
