"""Lines from local clients."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.errors import ConfigError
from slurm_power.gpu.local_request import (
    JobBegin,
    JobEnd,
    MyGpus,
    Points,
    RawPoint,
    SetCap,
    SetClock,
    Status,
    parse_request,
)
from slurm_power.gpu.wire import LOCAL_OPS

BEGIN = {
    "op": "job_begin",
    "job_id": 7,
    "uid": 1000,
    "node": "n1",
    "gpus": "0,1",
    "visible": "0,1",
    "options": {"gpu-power-cap": "300"},
}
POINT = {"measurement": "job_run", "wall_s": 1.7e9, "fields": {"event": "end", "energy_joules": 12.5}, "tags": {}}


def line(table: object) -> bytes:
    return json.dumps(table).encode()


def test_every_op_of_the_wire_is_understood() -> None:
    requests = {
        "job_begin": (BEGIN, JobBegin(7, 1000, "n1", "0,1", "0,1", {"gpu-power-cap": "300"}, task=False)),
        "task_begin": (
            BEGIN | {"op": "task_begin"},
            JobBegin(7, 1000, "n1", "0,1", "0,1", {"gpu-power-cap": "300"}, task=True),
        ),
        "job_end": ({"op": "job_end", "job_id": 7, "node": "n1"}, JobEnd(7, "n1")),
        "status": ({"op": "status"}, Status()),
        "my_gpus": ({"op": "my_gpus", "job_id": 7}, MyGpus(7)),
        "set_cap": ({"op": "set_cap", "job_id": 7, "uuid": "GPU-a", "watts": 250}, SetCap(7, "GPU-a", 250.0)),
        "set_clock": ({"op": "set_clock", "job_id": 7, "uuid": "GPU-a", "mhz": 1200}, SetClock(7, "GPU-a", 1200)),
        "points": (
            {"op": "points", "job_id": 7, "points": [POINT]},
            Points(7, (RawPoint("job_run", 1.7e9, {"event": "end", "energy_joules": 12.5}, {}),)),
        ),
    }
    assert set(requests) == set(LOCAL_OPS)
    for table, request in requests.values():
        assert parse_request(line(table)) == request


def test_a_null_cap_or_clock_withdraws() -> None:
    cap = parse_request(line({"op": "set_cap", "job_id": 7, "uuid": "GPU-a", "watts": None}))
    clock = parse_request(line({"op": "set_clock", "job_id": 7, "uuid": "GPU-a", "mhz": None}))
    assert (cap, clock) == (SetCap(7, "GPU-a", None), SetClock(7, "GPU-a", None))


@pytest.mark.parametrize("mhz", [-1, 1200.5, "1200", True, 2**60])
def test_a_strange_clock_is_refused(mhz: object) -> None:
    with pytest.raises(ConfigError, match="mhz: must be a whole number"):
        parse_request(line({"op": "set_clock", "job_id": 7, "uuid": "GPU-a", "mhz": mhz}))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"measurement": "grid"}, id="the-products-own-series"),
        pytest.param({"measurement": "job_run,node=x y=1\n"}, id="line-protocol-injection"),
        pytest.param({"fields": {}}, id="no-fields"),
        pytest.param({"fields": {"job_id": 9}}, id="forged-job"),
        pytest.param({"fields": {"uid": 0}}, id="forged-uid"),
        pytest.param({"tags": {"node": "n2"}}, id="forged-node"),
        pytest.param({"fields": {"x": None}}, id="not-a-value"),
        pytest.param({"fields": {"x": [1]}}, id="a-list"),
        pytest.param({"fields": {"X y": 1}}, id="odd-name"),
        pytest.param({"tags": {"model": "a\nb"}}, id="newline-in-a-tag"),
        pytest.param({"tags": {f"t{n}": "x" for n in "abcde"}}, id="too-many-tags"),
        pytest.param({"wall_s": "now"}, id="odd-time"),
    ],
)
def test_points_that_a_job_may_not_write(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        parse_request(line({"op": "points", "job_id": 7, "points": [POINT | change]}))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"op": "reboot"}, id="unknown-op"),
        pytest.param({"job_id": "7"}, id="id-as-text"),
        pytest.param({"job_id": True}, id="id-as-bool"),
        pytest.param({"job_id": -1}, id="negative-id"),
        pytest.param({"options": {"evil": "1"}}, id="unknown-option"),
        pytest.param({"options": {"gpu-power-cap": 300}}, id="option-not-text"),
        pytest.param({"gpus": "0," * 2000}, id="long-text"),
    ],
)
def test_a_strange_start_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        parse_request(line(BEGIN | change))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


@given(st.sampled_from(LOCAL_OPS), st.dictionaries(st.sampled_from([*BEGIN, "points", "uuid", "watts", "mhz"]), JSON))
def test_hostile_objects_are_read_or_refused(op: str, table: dict[str, object]) -> None:
    refusal, name = "", "JobEnd"
    try:
        name = type(parse_request(line(table | {"op": op}))).__name__
    except ConfigError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert name in ("JobBegin", "JobEnd", "Status", "MyGpus", "SetCap", "SetClock", "Points")
