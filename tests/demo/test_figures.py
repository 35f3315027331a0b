"""The demo's figures, against numbers worked by hand."""

from __future__ import annotations

from slurm_power.demo.figures import class_of, grid_figures, job_figures, metered
from slurm_power.demo.stream import draw_stream
from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.tariff import EnergyPrice, Tariff
from slurm_power.relocation.jobs import Job, JobState, PowerClass
from slurm_power.testing.simulated_site.plant import Truth


def row(wall_s: float, watts: float) -> Truth:
    return Truth(wall_s, watts, 0.0, watts, 0.0, 0.0, 0.0, 0.0, 0.0)


def job(job_id: int, *, submit_wall_s: float, start_wall_s: float | None, raw_state: str = "COMPLETED") -> Job:
    return Job(
        job_id=job_id,
        user_name="u",
        uid=1,
        name="",
        partition="main",
        state=JobState.OTHER,
        state_reason="None",
        gpus=1,
        node_names=(),
        submit_wall_s=submit_wall_s,
        begin_wall_s=None,
        start_wall_s=start_wall_s,
        time_limit_s=60,
        licenses={},
        batch=True,
        requeueable=True,
        admin_comment="",
        raw_state=raw_state,
    )


def test_intervals_are_means_over_time_not_over_rows() -> None:
    rows = [row(100, 1000), row(101, 3000), row(104, 500), row(110, 0)]
    first, second = metered(rows, start_wall_s=100, end_wall_s=110, interval_s=5)
    assert first.average_watts == (1 * 1000 + 3 * 3000 + 1 * 500) / 5
    assert second.average_watts == 500


def test_an_interval_that_has_not_ended_is_not_billed() -> None:
    assert len(metered([row(0, 1), row(9, 1)], start_wall_s=0, end_wall_s=9, interval_s=5)) == 1


def test_a_job_that_never_completed_is_lost() -> None:
    figures = job_figures(
        {1: "firm-a", 2: "flexible-b"},
        {1: job(1, submit_wall_s=0, start_wall_s=1), 2: job(2, submit_wall_s=0, start_wall_s=1, raw_state="TIMEOUT")},
        baseline_wait_s={},
        acted_on={},
    )
    assert (figures.jobs_finished, figures.jobs_lost) == (1, 1)


def test_a_firm_job_that_started_late_counts_as_affected_even_without_an_action() -> None:
    figures = job_figures(
        {1: "firm-a"}, {1: job(1, submit_wall_s=0, start_wall_s=30)}, baseline_wait_s={"firm-a": 1.0}, acted_on={}
    )
    assert figures.firm_jobs_affected == 1
    assert figures.worst_delay_s["firm"] == 29.0


def test_a_firm_job_that_was_acted_on_counts_as_affected_even_in_time() -> None:
    figures = job_figures(
        {1: "firm-a"},
        {1: job(1, submit_wall_s=0, start_wall_s=1)},
        baseline_wait_s={"firm-a": 1.0},
        acted_on={1: frozenset({"cap"})},
    )
    assert figures.firm_jobs_affected == 1
    assert figures.jobs_capped == 1


def test_the_same_seed_gives_the_same_stream_with_every_class_in_it() -> None:
    stream = draw_stream(3, day_s=160)
    assert stream == draw_stream(3, day_s=160)
    assert stream != draw_stream(4, day_s=160)
    assert {item.power_class for item in stream} == {*PowerClass, None}
    assert all(class_of(item.name) == (item.power_class or "plain") for item in stream)


def test_every_time_limit_leaves_room_for_the_allowed_slowdown() -> None:
    for item in draw_stream(3, day_s=160):
        assert item.limit_minutes * 60 >= item.work_s / (1 - (item.max_slowdown_fraction or 0.0))


def test_work_that_ran_past_the_billing_period_pays_one_demand_charge() -> None:
    tariff = Tariff(
        energy_prices=(EnergyPrice(start_s=0.0, price_per_kwh=0.0),),
        demand_price_per_kw=20.0,
        metering_interval_s=5.0,
        billing_period_s=10.0,
    )
    battery = BatteryLimits(capacity_joules=1.0, max_charge_watts=1.0, max_discharge_watts=1.0)
    rows = [row(0, 1000), row(10, 3000), row(20, 0)]
    figures = grid_figures(rows, tariff=tariff, battery=battery, start_wall_s=0, end_wall_s=20)
    assert figures.bill_demand == 60.0
