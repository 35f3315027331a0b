"""The error tree and its exit codes: scripts and systemd units decide by them."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from slurm_power import errors
from slurm_power.cli.main import run_command, slurm_power

ROOT = Path(__file__).resolve().parents[2]
TREE = {
    errors.SlurmPowerError: (Exception, 1),
    errors.ConfigError: (errors.SlurmPowerError, 3),
    errors.NotPermitted: (errors.SlurmPowerError, 4),
    errors.DeviceError: (errors.SlurmPowerError, 5),
    errors.DeviceGone: (errors.DeviceError, 5),
    errors.DeviceRefused: (errors.DeviceError, 5),
    errors.Unavailable: (errors.SlurmPowerError, 6),
}


def test_the_tree_has_no_other_error() -> None:
    ours = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert ours == set(TREE)


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)
def test_an_error_stands_where_it_stood_and_exits_as_it_did(error: type[errors.SlurmPowerError]) -> None:
    parent, exit_code = TREE[error]
    assert error.__bases__ == (parent,)
    assert error.exit_code == exit_code


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)
def test_a_command_that_fails_says_one_line_and_exits_with_its_errors_code(
    error: type[errors.SlurmPowerError], capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command(name="failing")
    def failing() -> None:
        raise error("what went wrong")

    with pytest.raises(SystemExit) as ended:
        run_command(failing, args=[])
    assert ended.value.code == error.exit_code
    assert capsys.readouterr().err == "failing: what went wrong\n"


def test_wrong_usage_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_command(slurm_power, args=["no-such-command"])
    assert ended.value.code == 2
    assert "No such command" in capsys.readouterr().err


def test_systemd_does_not_restart_the_controller_for_what_a_person_must_mend() -> None:
    unit = (ROOT / "etc" / "systemd" / "slurm-powerd.service").read_text()
    codes = re.search(r"^RestartPreventExitStatus=(.*)$", unit, re.MULTILINE)
    assert codes is not None
    assert [int(code) for code in codes.group(1).split()] == [
        2,
        errors.ConfigError.exit_code,
        errors.NotPermitted.exit_code,
    ]


def test_help_and_readme_name_the_codes() -> None:
    readme = (ROOT / "README.md").read_text()
    for code in (2, 3, 4, 5, 6):
        assert re.search(rf"\b{code} [a-z]", slurm_power.help or "")
        assert re.search(rf"\b{code} [a-z]", readme)
