"""The wire messages between agent and controller."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.errors import ConfigError
from slurm_power.gpu.wire import AgentReport, GpuReport, NodeLease
from slurm_power.gpu.wire_json import lease_from_json, lease_to_json, report_from_json, report_to_json

GPU = GpuReport("GPU-a", 650.5, 1e6, 1980, 55.0, 0.9, 700.0, "found", 200.0, 700.0, 12)
LOST = GpuReport("GPU-b", None, None, None, None, None, None, "found", 200.0, 700.0, None, "GPU is lost")
REPORT = AgentReport("n1", 500.0, 0.2, (GPU, LOST), None)
LEASE = NodeLease("n1", 7, 30.0, {"GPU-a": 300.0}, {"GPU-a": 1200})


def test_a_report_arrives_as_it_was_sent() -> None:
    assert report_from_json(report_to_json(REPORT)) == REPORT


def test_a_lease_arrives_as_it_was_sent() -> None:
    assert lease_from_json(lease_to_json(LEASE)) == LEASE


def test_no_lease_is_an_empty_object() -> None:
    assert lease_to_json(None) == b"{}"
    assert lease_from_json(b"{}") is None


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"valid_s": 0}, id="no-time"),
        pytest.param({"valid_s": True}, id="not-a-number"),
        pytest.param({"valid_s": 10**400}, id="too-large"),
        pytest.param({"cap_watts": {"GPU-a": -5}}, id="negative"),
        pytest.param({"cap_watts": []}, id="not-an-object"),
        pytest.param({"lease_id": 1.5}, id="half-an-id"),
        pytest.param({"extra": 1}, id="unknown-key"),
    ],
)
def test_a_strange_lease_is_refused(change: dict[str, object]) -> None:
    table = json.loads(lease_to_json(LEASE)) | change
    with pytest.raises(ConfigError):
        lease_from_json(json.dumps(table).encode())


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b'{"valid_s": NaN}', b'{"a":1,"a":2}', b"\xff", b"[" * 100000]
)
def test_what_is_not_one_object_is_refused(body: bytes) -> None:
    for parse in (lease_from_json, report_from_json):
        with pytest.raises(ConfigError):
            parse(body)


@given(st.binary(max_size=200))
def test_garbage_never_gets_further_than_config_error(body: bytes) -> None:
    if body.strip() == b"{}":
        return
    with pytest.raises(ConfigError, match=r"\A[^\n]*\Z"):
        lease_from_json(body)
