"""Config: strict keys, and messages that name key, value and rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm_power.adapters.meter_open import PartsConfig
from slurm_power.adapters.meter_redfish import RedfishMeterConfig
from slurm_power.adapters.meter_sunspec import SunSpecMeterConfig
from slurm_power.daemons.controller_config import ControllerConfig
from slurm_power.errors import ConfigError
from slurm_power.site_config import OWNERS, owner_of, read_site_config


def write(path: Path, text: str) -> Path:
    file = path / "slurm-power.toml"
    file.write_text(text)
    file.chmod(0o644)
    return file


def read_controller(path: Path, text: str) -> ControllerConfig:
    return read_site_config(write(path, text), only={"controller"}).table(ControllerConfig)


def test_values_reach_their_owner_with_their_type(tmp_path: Path) -> None:
    config = read_controller(
        tmp_path, '[controller]\nstate_path = "/x"\ntick_period_s = 2\nallowed_agent_uids = [0, 7]'
    )
    assert config.state_path == Path("/x")
    assert config.tick_period_s == 2.0
    assert isinstance(config.tick_period_s, float)
    assert config.allowed_agent_uids == (0, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("[nonsense]", "[nonsense]: unknown table", id="unknown-table"),
        pytest.param(
            '[controller]\nstate_path = "x"\ntick = 1', "[controller] tick = 1: unknown key", id="unknown-key"
        ),
        pytest.param("[controller]", "[controller] state_path: missing", id="missing-key"),
        pytest.param(
            '[controller]\nstate_path = "x"\ntick_period_s = "soon"',
            "[controller] tick_period_s = 'soon': must be a number",
            id="wrong-type",
        ),
        pytest.param(
            '[controller]\nstate_path = "x"\nmode = "maybe"', "must be one of manage, observe", id="wrong-choice"
        ),
        pytest.param(
            '[controller]\nstate_path = "x"\nlease_s = 1.0',
            "[controller] lease_s = 1.0: must outlast",
            id="broken-rule",
        ),
        pytest.param("controller = 3", "controller = 3: must be a table", id="not-a-table"),
        pytest.param("[controller", "not TOML", id="not-toml"),
        pytest.param(
            '[controller]\nstate_path = "x"\nlisten_port = true', "must be a whole number", id="bool-is-no-int"
        ),
    ],
)
def test_a_bad_file_gets_one_line_that_names_what_and_why(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_controller(tmp_path, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "slurm-power.toml" in str(caught.value)


def test_a_file_that_anybody_may_write_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, '[controller]\nstate_path = "x"')
    file.chmod(0o666)
    with pytest.raises(ConfigError, match="anybody may write it"):
        read_site_config(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: No such file"):
        read_site_config(tmp_path / "absent.toml")


def test_every_table_has_an_owner_that_exists() -> None:
    for table in OWNERS:
        assert isinstance(owner_of(table), type)


def read_meter(path: Path, text: str) -> object:
    return read_site_config(write(path, text), only={"meter", "parts"}).chosen("meter")


def test_a_meter_without_a_kind_is_the_sunspec_one(tmp_path: Path) -> None:
    meter = read_meter(tmp_path, '[meter]\nhost = "m"\nimport_is_positive = true')
    assert meter == SunSpecMeterConfig(host="m", import_is_positive=True)


def test_a_kind_chooses_who_owns_the_table(tmp_path: Path) -> None:
    text = '[meter]\nkind = "redfish"\nurl = "https://b"\npath = "/redfish/v1/x"\nmax_watts = 5'
    assert read_meter(tmp_path, text) == RedfishMeterConfig(url="https://b", path="/redfish/v1/x", max_watts=5.0)


def test_named_meters_are_each_of_their_kind(tmp_path: Path) -> None:
    text = """
        [parts.meters.b7]
        kind = "redfish"
        url = "https://b"
        path = "/redfish/v1/x"
        max_watts = 5
        [parts.meters.main]
        host = "m"
        import_is_positive = true
    """
    parts = read_site_config(write(tmp_path, text), only={"parts"}).table(PartsConfig)
    assert {name: type(meter) for name, meter in parts.meters.items()} == {
        "b7": RedfishMeterConfig,
        "main": SunSpecMeterConfig,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            '[meter]\nkind = "modbus"', "[meter] kind = 'modbus': must be one of sunspec, snmp, red", id="kind"
        ),
        pytest.param("[meter]\nkind = 3", "[meter] kind = 3: must be one of sunspec", id="kind-type"),
        pytest.param(
            '[meter]\nkind = "snmp"\nunit_id = 3', "[meter] unit_id = 3: unknown key; known are kind, dev", id="key"
        ),
        pytest.param('[meter]\nkind = "parts"', "[meter] kind = parts: needs the table [parts]", id="parts-of-none"),
        pytest.param("[parts]", "[parts] meters: missing", id="no-meters"),
        pytest.param("[parts.meters]", "[parts] meters = : must be 1 to 64 meters", id="empty"),
        pytest.param("[parts]\nmeters = 3", "[parts] meters = 3: must be a table", id="not-a-table"),
        pytest.param("[parts]\nmeters.a = 3", "[parts] meters.a = 3: must be a table", id="a-part-not-a-table"),
        pytest.param(
            '[parts.meters.a]\nkind = "parts"', "[parts] meters.a kind = 'parts': must be one of sun", id="nested"
        ),
        pytest.param('[parts.meters.a]\nkind = "snmp"', "[parts] meters.a device: missing", id="part-incomplete"),
        pytest.param(
            '[parts.meters.a]\nhost = "m"\nimport_is_positive = true\n[parts.conservation]\nwindow_s = 0',
            "[parts] conservation window_s = 0.0: must be above 0",
            id="rule",
        ),
    ],
)
def test_a_bad_meter_gets_one_line_too(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_meter(tmp_path, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
