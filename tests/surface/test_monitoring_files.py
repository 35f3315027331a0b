"""etc/grafana and etc/prometheus are held to the names that the product really tells."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from slurm_power.daemons.controller_metrics import DecisionCounts, controller_metrics
from slurm_power.daemons.controller_view import Event
from slurm_power.daemons.node_agent_metrics import THROTTLE_REASONS, agent_metrics
from slurm_power.monitoring.openmetrics import Family, render
from tests.surface.test_telemetry_surface import a_gpu, documented_fields, documented_tags, sections
from tests.web.made_up_site import MadeUpSite

ETC = Path(__file__).resolve().parents[2] / "etc"
DASHBOARDS = sorted((ETC / "grafana").glob("*.json"))
BASE_UNITS = {"watts", "joules", "seconds", "hertz", "celsius", "ratio", "bytes", ""}


def families() -> list[Family]:
    decisions = DecisionCounts().with_events([Event(0.0, "cap", "job 1", "x"), Event(0.0, "cap", "job 2", "x", "no")])
    site = MadeUpSite(nodes=4).picture()
    controller = controller_metrics(site, healthy=True, decisions=decisions, energy_joules=1e9)
    agent = agent_metrics([a_gpu()], base_watts=1700.0, lease_remaining_s=None, tracks_lease=True, now_s=1.0)
    return [*controller, *agent]


SAMPLES = {family.sample_name: {key for labels, _ in family.samples for key in labels} for family in families()}


def test_a_reader_of_openmetrics_takes_what_we_tell() -> None:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    read = {family.name: family for family in parser.text_string_to_metric_families(render(families()))}
    assert set(read) == {family.full_name for family in families()}
    draw = read["slurm_power_gpu_draw_watts"]
    assert (draw.type, draw.unit) == ("gauge", "watts")
    assert read["slurm_power_decisions"].samples[0].labels == {"verb": "cap", "outcome": "done"}


def test_every_unit_is_a_base_unit_and_ends_the_name() -> None:
    for family in families():
        assert family.unit in BASE_UNITS
        assert family.name.endswith(family.unit)
        assert not re.search(r"kw|mhz|percent|_ms\b|kwh", family.name)


def test_no_series_is_opened_for_a_job_or_a_user() -> None:
    assert {label for labels in SAMPLES.values() for label in labels} == {
        "uuid", "node", "source", "reason", "cap_source", "state", "action", "verb", "outcome",
    }  # fmt: skip


def test_every_metric_that_an_alert_asks_for_is_told() -> None:
    rules = yaml.safe_load((ETC / "prometheus/slurm-power.rules.yml").read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in alerts}) == len(alerts) > 10
    for rule in alerts:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        for name, matchers in re.findall(r"(slurm_power_\w+)(?:\{(.*?)\})?", rule["expr"]):
            assert name in SAMPLES, rule["alert"]
            assert set(re.findall(r"(\w+)=", matchers)) <= SAMPLES[name], rule["alert"]


def test_alerts_name_reasons_and_outcomes_that_exist() -> None:
    text = (ETC / "prometheus/slurm-power.rules.yml").read_text()
    asked = re.search(r'reason=~"(.*?)"', text)
    assert asked is not None
    assert set(asked.group(1).split("|")) <= set(THROTTLE_REASONS.values())


def test_an_alert_scrapes_what_the_example_scrapes() -> None:
    scraped = yaml.safe_load((ETC / "prometheus/scrape.yml").read_text())["scrape_configs"]
    jobs = {job["job_name"] for job in scraped}
    named = re.findall(r'job="(.+?)"', (ETC / "prometheus/slurm-power.rules.yml").read_text())
    assert named
    assert set(named) <= jobs


def queries(board: dict[str, Any]) -> Iterator[str]:
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield target["query"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_every_field_that_a_dashboard_asks_for_is_written(file: Path) -> None:
    board = json.loads(file.read_text())
    known = {name: {*documented_fields(name), *documented_tags(name)} for name in sections()}
    asked = list(queries(board))
    assert len(asked) > 8
    for query in asked:
        (measurement,) = re.findall(r'FROM "(\w+)"', query)
        names = set(re.findall(r'"(\w+)"', query)) - {measurement}
        assert measurement in known
        assert names <= known[measurement], query


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_can_be_loaded_beside_the_others(file: Path) -> None:
    board = json.loads(file.read_text())
    assert board["uid"] == f"slurm-power-{file.stem}"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert all(panel["title"] and panel["datasource"]["uid"] == "${source}" for panel in board["panels"])
    power = [p for p in board["panels"] if any("watts" in t["query"] for t in p["targets"]) and p["type"] != "table"]
    assert power
    assert {panel["fieldConfig"]["defaults"]["unit"] for panel in power} == {"watt"}
