"""Config: strict keys, and messages that name key, value and rule."""

from __future__ import annotations

from pathlib import Path

import pytest

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
