"""What PDUs ask of a client beyond the contract of every meter (tests/contracts/test_meter.py): on a real snmpd."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from slurm_power.adapters.meter_snmp import SnmpMeter, SnmpMeterConfig
from slurm_power.errors import ConfigError, Unavailable
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.snmpd_server import SnmpdServer, apc_says, find_snmpd, raritan_says

ACCESS = [
    "rocommunity hush 127.0.0.1",
    "createUser meter SHA-256 authentic1 AES private-1",
    "rouser meter priv",
    "createUser older SHA authentic1 DES private-1",
    "rouser older priv",
]
NUMBER = "1.3.6.1.4.1.318.1.1.26.4.3.1.5.1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SnmpdServer]:
    if find_snmpd() is None:
        pytest.skip("snmpd is not installed")
    with SnmpdServer(tmp_path_factory.mktemp("snmpd"), ACCESS) as running:
        yield running


def secret(directory: Path, text: str) -> Path:
    file = directory / f"secret-{text}"
    file.write_text(text + "\n")
    file.chmod(0o600)
    return file


def meter_on(server: SnmpdServer, directory: Path, **changes: Any) -> SnmpMeter:
    keys: dict[str, Any] = {"device": "apc_rpdu2", "max_watts": 20_000.0, "timeout_s": 20.0}
    if "user" not in changes:
        keys["community_file"] = secret(directory, "hush")
    config = SnmpMeterConfig(**{"host": server.host, "port": server.port, **keys, **changes})
    return SnmpMeter(config, clock=FakeClock(), name="pdu-a1")


def keys_of_v3(
    directory: Path, user: str = "meter", *, auth: str = "authentic1", priv: str = "private-1"
) -> dict[str, Any]:
    return {"user": user, "auth_key_file": secret(directory, auth), "priv_key_file": secret(directory, priv)}


def test_apc_counts_hundredths_of_a_kilowatt(server: SnmpdServer, tmp_path: Path) -> None:
    server.serve({NUMBER: ("integer", 123)})
    with closing(meter_on(server, tmp_path)) as meter:
        assert meter.read().import_watts == 1230.0


@pytest.mark.parametrize(("digits", "raw", "watts"), [(0, 1234, 1234.0), (1, 1234, 123.4), (3, 1_234_567, 1234.567)])
def test_raritan_says_itself_where_its_point_stands(
    server: SnmpdServer, tmp_path: Path, digits: int, raw: int, watts: float
) -> None:
    server.serve(raritan_says(watts, digits=digits))
    assert any(value == raw for _, value in raritan_says(watts, digits=digits).values())
    with closing(meter_on(server, tmp_path, device="raritan_px2")) as meter:
        assert meter.read().import_watts == pytest.approx(watts)


def test_the_point_may_move_between_two_readings(server: SnmpdServer, tmp_path: Path) -> None:
    with closing(meter_on(server, tmp_path, device="raritan_px2")) as meter:
        for digits in (1, 3, 0):
            server.serve(raritan_says(1500.0, digits=digits))
            assert meter.read().import_watts == pytest.approx(1500.0)


def test_each_pdu_of_a_chain_and_each_inlet_is_read_by_its_number(server: SnmpdServer, tmp_path: Path) -> None:
    server.serve({**apc_says(100.0), **apc_says(200.0, pdu=2), **raritan_says(300.0, pdu=2, inlet=3)})
    for changes, watts in (
        ({"pdu": 1}, 100.0),
        ({"pdu": 2}, 200.0),
        ({"device": "raritan_px2", "pdu": 2, "inlet": 3}, 300.0),
    ):
        with closing(meter_on(server, tmp_path, **changes)) as meter:
            assert meter.read().import_watts == watts


@pytest.mark.parametrize(
    ("device", "values", "words"),
    [
        pytest.param("apc_rpdu2", {}, "no such object: rPDU2DeviceStatusPower", id="no-such-object"),
        pytest.param("apc_rpdu2", {NUMBER: ("integer", -1)}, "-10 W is outside 0 to 20000 W", id="not-available"),
        pytest.param("apc_rpdu2", {NUMBER: ("integer", 2001)}, "20010 W is outside", id="absurd"),
        pytest.param("apc_rpdu2", {NUMBER: ("string", "12kW")}, "no whole number", id="text"),
        pytest.param("raritan_px2", apc_says(5.0), "no such object: measurementsInletSensorIs", id="another-vendor"),
        pytest.param("raritan_px2", raritan_says(5.0, unit=4), "in unit 4, not in watts", id="volt-amperes"),
        pytest.param("raritan_px2", raritan_says(5.0, available=2), "power is not available", id="sensor-off"),
        pytest.param(
            "raritan_px2",
            {**raritan_says(5.0), "1.3.6.1.4.1.13742.6.3.3.4.1.7.1.1.5": ("gauge", 77)},
            "inletSensorDecimalDigits = 77 makes no sense",
            id="digits",
        ),
        pytest.param("raritan_px2", raritan_says(-5.0), "-5 W is outside", id="negative"),
    ],
)
def test_what_is_not_a_power_is_unavailable_in_one_line(
    server: SnmpdServer, tmp_path: Path, device: str, values: Any, words: str
) -> None:
    server.serve(values)
    with closing(meter_on(server, tmp_path, device=device)) as meter, pytest.raises(Unavailable) as caught:
        meter.read()
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"pdu-a1 127.0.0.1:{server.port}: ")
    assert "\n" not in str(caught.value)


def test_snmp_v3_reads_with_authentication_and_privacy(server: SnmpdServer, tmp_path: Path) -> None:
    server.serve(apc_says(1230.0))
    for user, algorithms in (("meter", {}), ("older", {"auth": "sha1", "priv": "des"})):
        with closing(meter_on(server, tmp_path, **keys_of_v3(tmp_path, user), **algorithms)) as meter:
            assert [meter.read().import_watts for _ in range(2)] == [1230.0, 1230.0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"user": "nobody"}, "refuses the keys of user nobody"),
        ({"auth": "mistaken-1"}, "refuses the keys of user meter"),
        # Nobody answers what cannot be deciphered.
        ({"priv": "mistaken-1"}, "does not answer within 1 s; check host and keys of user meter"),
    ],
)
def test_wrong_keys_are_unavailable(server: SnmpdServer, tmp_path: Path, wrong: dict[str, str], words: str) -> None:
    server.serve(apc_says(1230.0))
    timeout_s = 1.0 if "priv" in wrong else 20.0
    meter = meter_on(server, tmp_path, **keys_of_v3(tmp_path, **wrong), timeout_s=timeout_s)
    with closing(meter), pytest.raises(Unavailable) as caught:
        meter.read()
    assert words in str(caught.value)


def test_a_wrong_community_is_silence_and_the_line_says_what_to_look_at(server: SnmpdServer, tmp_path: Path) -> None:
    meter = meter_on(server, tmp_path, community_file=secret(tmp_path, "public"), timeout_s=0.3)
    with closing(meter), pytest.raises(Unavailable, match=r"does not answer within 0.3 s; check host and comm"):
        meter.read()


def test_a_device_that_restarts_is_read_again(tmp_path: Path) -> None:
    if find_snmpd() is None:
        pytest.skip("snmpd is not installed")
    with SnmpdServer(tmp_path / "snmpd", ACCESS) as own:
        own.serve(apc_says(700.0))
        with closing(meter_on(own, tmp_path, **keys_of_v3(tmp_path))) as meter:
            meter.read()
            own.restart()
            assert meter.read().import_watts == 700.0


@pytest.mark.parametrize("version", ["v2c", "v3"])
@pytest.mark.parametrize("packet", [b"0", b"0\x82", b"0\x84\xff\xff\xff\xff", b"\x02\x01", b"HTTP/1.1 400 Bad Request"])
def test_a_packet_that_is_no_snmp_is_unavailable_whatever_the_library_makes_of_it(
    tmp_path: Path, packet: bytes, version: str
) -> None:
    keys = keys_of_v3(tmp_path) if version == "v3" else {"community_file": secret(tmp_path, "hush")}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.bind(("127.0.0.1", 0))
        device.settimeout(20.0)
        answering = threading.Thread(target=lambda: device.sendto(packet, device.recvfrom(65_535)[1]))
        answering.start()
        config = SnmpMeterConfig(
            device="apc_rpdu2", host="127.0.0.1", port=device.getsockname()[1], timeout_s=20.0, max_watts=1.0, **keys
        )
        with closing(SnmpMeter(config, clock=FakeClock())) as meter, pytest.raises(Unavailable) as caught:
            meter.read()
        answering.join()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", ["v2c", "v3"])
def test_one_deadline_holds_for_all_requests_of_a_reading(server: SnmpdServer, tmp_path: Path, version: str) -> None:
    keys = keys_of_v3(tmp_path) if version == "v3" else {}
    with closing(meter_on(server, tmp_path, **keys, timeout_s=0.4)) as meter:
        server.silence(True)
        began_s = time.monotonic()
        try:
            with pytest.raises(Unavailable):
                meter.read()
        finally:
            server.silence(False)
        assert time.monotonic() - began_s < 10.0


def test_a_host_without_address_is_unavailable(server: SnmpdServer, tmp_path: Path) -> None:
    with (
        closing(meter_on(server, tmp_path, host="pdu.invalid")) as meter,
        pytest.raises(Unavailable, match=r"pdu\.invalid"),
    ):
        meter.read()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": ""}, "host"),
        ({"port": 0}, "port"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"max_watts": 0.0}, "max_watts"),
        ({"pdu": 0}, "pdu"),
        ({"inlet": 0}, "inlet"),
        ({"user": "meter"}, "asks for v2c"),
        ({"community_file": None}, "user = '': SNMP v3 needs it"),
        ({"community_file": None, "user": "meter"}, "auth_key_file = None"),
    ],
)
def test_a_config_that_cannot_work_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"device": "apc_rpdu2", "host": "pdu", "max_watts": 1e4, "community_file": Path("/c")}
    with pytest.raises(ConfigError, match=message):
        SnmpMeterConfig(**{**good, **changes})


def test_a_secret_that_everybody_may_read_or_that_is_too_short_is_refused(tmp_path: Path) -> None:
    server = SnmpdServer(tmp_path, [])
    with pytest.raises(ConfigError, match=r"priv_key_file = .*8 characters"):
        meter_on(server, tmp_path, port=161, **keys_of_v3(tmp_path, priv="short"))
    secret(tmp_path, "hush").chmod(0o644)
    config = SnmpMeterConfig(device="apc_rpdu2", host="pdu", max_watts=1.0, community_file=tmp_path / "secret-hush")
    with pytest.raises(ConfigError, match=r"community_file = .*anybody may read it"):
        SnmpMeter(config, clock=FakeClock())
