"""What Redfish asks of a client beyond the contract of every meter (tests/contracts/test_meter.py)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trustme

from slurm_power.adapters.bounded_get import MOST_BYTES
from slurm_power.adapters.meter_redfish import REFUSED_PAUSE_S, RedfishMeter, RedfishMeterConfig
from slurm_power.errors import ConfigError, Unavailable
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.redfish_server import RedfishServer

PATH = "/redfish/v1/Chassis/1/EnvironmentMetrics"
PASSWORD = "sesame and more"


def metrics(watts: object) -> dict[str, Any]:
    return {"@odata.type": "#EnvironmentMetrics.v1_2_0.EnvironmentMetrics", "PowerWatts": {"Reading": watts}}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem and, signed by it, server.pem."""
    directory = tmp_path_factory.mktemp("ca")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(directory / "ca.pem"))
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(directory / "server.pem"))
    return directory


@pytest.fixture
def server(authority: Path) -> Iterator[RedfishServer]:
    with RedfishServer(certificate=authority / "server.pem", user="monitor", password=PASSWORD) as running:
        running.resources[PATH] = metrics(412.5)
        yield running


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def settings(server: RedfishServer, authority: Path, tmp_path: Path) -> dict[str, Any]:
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    password.chmod(0o600)
    return {
        "url": server.url,
        "path": PATH,
        "max_watts": 10_000.0,
        "timeout_s": 20.0,
        "user": "monitor",
        "password_file": password,
        "ca_file": authority / "ca.pem",
    }


def meter_of(settings: dict[str, Any], clock: FakeClock, **changes: Any) -> RedfishMeter:
    return RedfishMeter(RedfishMeterConfig(**{**settings, **changes}), clock=clock, name="rack-3")


def failure_of(meter: RedfishMeter) -> str:
    with pytest.raises(Unavailable) as caught:
        meter.read()
    return str(caught.value)


def test_power_comes_over_tls_with_user_and_password(settings: dict[str, Any], clock: FakeClock) -> None:
    with closing(meter_of(settings, clock)) as meter:
        assert meter.read().import_watts == 412.5


def test_one_connection_serves_many_readings(settings: dict[str, Any], clock: FakeClock, server: RedfishServer) -> None:
    with closing(meter_of(settings, clock)) as meter:
        for _ in range(5):
            meter.read()
    assert (server.connections, server.requests) == (1, 5)


def test_a_certificate_that_the_ca_did_not_sign_is_not_trusted(
    settings: dict[str, Any], clock: FakeClock, server: RedfishServer, tmp_path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other-ca.pem"))
    for ca_file in (tmp_path / "other-ca.pem", None):
        with closing(meter_of(settings, clock, ca_file=ca_file)) as meter:
            assert "certificate verify failed" in failure_of(meter)
    assert server.requests == 0, "the password went nowhere"


def test_a_refused_password_rests_before_it_is_tried_again(
    settings: dict[str, Any], clock: FakeClock, server: RedfishServer, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("guess\n")
    wrong.chmod(0o600)
    with closing(meter_of(settings, clock, password_file=wrong)) as meter:
        assert "refuses user 'monitor' (HTTP 401)" in failure_of(meter)
        for _ in range(5):
            clock.advance(5.0)
            assert "asked again in" in failure_of(meter)
        assert server.requests == 1
        clock.advance(REFUSED_PAUSE_S)
        failure_of(meter)
        assert server.requests == 2
        assert "guess" not in failure_of(meter)


@pytest.mark.parametrize(
    ("resource", "words"),
    [
        pytest.param(metrics(None), "PowerWatts.Reading is null or missing", id="null"),
        pytest.param(metrics(-3), "-3 W is outside 0 to 10000 W", id="negative"),
        pytest.param(metrics(65_535), "65535 W is outside", id="absurd"),
        pytest.param(b"<html>\n<p>busy", "the answer is not JSON", id="html"),
        pytest.param(b'{"PowerWatts": {"Reading": 4', "the answer is not JSON", id="cut-short"),
        pytest.param(b"\xff\xfe{", "the answer is not JSON", id="not-text"),
        pytest.param(b"[" * 200_000, "the answer is not JSON", id="deep"),
        pytest.param(b" " * (MOST_BYTES + 1), "more than", id="long"),
    ],
)
def test_what_is_not_a_power_is_unavailable_in_one_line(
    settings: dict[str, Any], clock: FakeClock, server: RedfishServer, resource: Any, words: str
) -> None:
    server.resources[PATH] = resource
    with closing(meter_of(settings, clock)) as meter:
        failure = failure_of(meter)
    assert words in failure
    assert failure.startswith(f"rack-3 {server.url}{PATH}: ")
    assert "\n" not in failure


@pytest.mark.parametrize("status", [301, 404, 500, 503])
def test_an_error_of_the_service_is_unavailable_and_the_next_answer_counts(
    settings: dict[str, Any], clock: FakeClock, server: RedfishServer, status: int
) -> None:
    with closing(meter_of(settings, clock)) as meter:
        server.status = status
        assert f"HTTP {status}" in failure_of(meter)
        server.status = None
        assert meter.read().import_watts == 412.5


@pytest.mark.parametrize("fault", ["silent", "dripping"])
def test_one_deadline_holds_however_slowly_the_answer_comes(
    settings: dict[str, Any], clock: FakeClock, server: RedfishServer, fault: str
) -> None:
    server.resources[PATH] = {**metrics(1.0), "Oem": "x" * 2000}  # dripping: 100 s
    with closing(meter_of(settings, clock, timeout_s=0.7)) as meter:
        setattr(server, fault, True)
        began_s = time.monotonic()
        assert "no whole answer within 0.7 s" in failure_of(meter)
        assert time.monotonic() - began_s < 20.0
        setattr(server, fault, False)
    with closing(meter_of(settings, clock)) as patient:
        assert patient.read().import_watts == 1.0


def test_a_connection_that_the_service_closed_is_opened_again_once(
    settings: dict[str, Any], clock: FakeClock, server: RedfishServer
) -> None:
    with closing(meter_of(settings, clock)) as meter:
        meter.read()
        server.hang_ups = 1
        assert meter.read().import_watts == 412.5
        assert (server.connections, server.requests) == (2, 3)
        server.hang_ups = 2
        assert "disconnected" in failure_of(meter)
        assert meter.read().import_watts == 412.5


def test_a_service_that_is_gone_is_unavailable(clock: FakeClock) -> None:
    with RedfishServer() as server:
        url = server.url
    with closing(meter_of({"url": url, "path": PATH, "max_watts": 1.0}, clock)) as meter:
        assert "rack-3 http://127.0.0.1" in failure_of(meter)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "bmc.example.org"}, "url"),
        ({"url": "https://bmc/redfish"}, "url"),
        ({"url": "https://me:pw@bmc"}, "url"),
        ({"url": "http://bmc", "user": "a", "password_file": Path("/p")}, "a password goes over https only"),
        ({"path": "/Chassis/1"}, "path"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"max_watts": -1.0}, "max_watts"),
        ({"user": "a"}, "belong together"),
        ({"password_file": Path("/p")}, "belong together"),
    ],
)
def test_a_config_that_cannot_work_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RedfishMeterConfig(**{"url": "https://bmc", "path": PATH, "max_watts": 1.0, **changes})


def test_a_ca_file_that_holds_no_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for name in ("absent.pem", "empty.pem"):
        config = RedfishMeterConfig(url="https://bmc", path=PATH, max_watts=1.0, ca_file=tmp_path / name)
        with pytest.raises(ConfigError, match=r"ca_file = .*" + name):
            RedfishMeter(config, clock=FakeClock())
