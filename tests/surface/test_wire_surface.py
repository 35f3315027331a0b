"""What goes over the wire between agent, controller, plugin and jobs is frozen: agents of two releases must understand
each other while a cluster is updated."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from slurm_power.gpu import wire
from slurm_power.gpu.local_request import (
    MAX_FIELDS,
    MAX_POINTS,
    MAX_TAGS,
    POINT_PREFIXES,
    JobBegin,
    JobEnd,
    MyGpus,
    Points,
    RawPoint,
    SetCap,
    SetClock,
)
from slurm_power.gpu.wire import LOCAL_OPS, MAX_LINE_BYTES, OPTIONS, AgentReport, GpuReport, NodeLease
from slurm_power.gpu.wire_json import MAX_GPUS, lease_to_json, report_to_json

SPANK = Path(__file__).resolve().parents[2] / "spank"
MESSAGES = {
    AgentReport: "node_name base_watts age_s gpus lease_remaining_s",
    GpuReport: (
        "uuid draw_watts energy_joules sm_clock_mhz temperature_celsius utilisation_fraction cap_watts cap_source "
        "min_cap_watts max_cap_watts job_id error"
    ),
    NodeLease: "node_name lease_id valid_s cap_watts clock_mhz",
    JobBegin: "job_id uid node gpus visible options task",
    JobEnd: "job_id node",
    MyGpus: "job_id",
    SetCap: "job_id uuid watts",
    SetClock: "job_id uuid mhz",
    Points: "job_id points",
    RawPoint: "measurement wall_s fields tags",
}


@pytest.mark.parametrize(("message", "names"), MESSAGES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_message_has_its_frozen_fields(message: type, names: str) -> None:
    assert [field.name for field in fields(message)] == names.split()


def test_a_report_is_its_fields_as_json_and_nothing_else() -> None:
    gpu = GpuReport("GPU-a", 650.5, 1e6, 1980, 55.0, 0.9, 700.0, "found", 200.0, 700.0, 12, None)
    table = json.loads(report_to_json(AgentReport("n1", 500.0, 0.2, (gpu,), None)))
    assert set(table) == set(MESSAGES[AgentReport].split())
    assert set(table["gpus"][0]) == set(MESSAGES[GpuReport].split())


def test_a_lease_is_its_fields_as_json_and_nothing_else() -> None:
    table = json.loads(lease_to_json(NodeLease("n1", 1, 30.0, {"GPU-a": 300.0}, {"GPU-a": 1200})))
    assert set(table) == set(MESSAGES[NodeLease].split())


def test_the_operations_of_the_local_socket_are_the_frozen_ones() -> None:
    assert LOCAL_OPS == ("job_begin", "task_begin", "job_end", "status", "my_gpus", "set_cap", "set_clock", "points")


def test_the_options_are_the_frozen_ones() -> None:
    assert OPTIONS == ("gpu-power-cap", "gpu-clock", "power-class", "power-max-slowdown", "power-max-delay")


def test_the_limits_are_the_frozen_ones() -> None:
    assert (MAX_LINE_BYTES, MAX_GPUS, MAX_POINTS, MAX_FIELDS, MAX_TAGS) == (262_144, 64, 1000, 32, 4)
    assert POINT_PREFIXES == ("job_", "serving_", "training_")


def test_the_plugin_sends_the_operations_and_fields_of_the_wire() -> None:
    source = "".join(file.read_text() for file in SPANK.glob("*.c"))
    named = set(re.findall(r'"(\w+)"', source))
    assert {"job_begin", "task_begin", "job_end"} <= named
    assert {"op", "job_id", "uid", "node", "gpus", "visible", "options"} <= named


def test_the_wire_page_names_every_operation() -> None:
    assert [op for op in LOCAL_OPS if not re.search(rf"^ {{4}}{op} ", wire.__doc__ or "", re.MULTILINE)] == []
