"""Errors, grouped by what the caller should do about them.

SlurmPowerError
|-- ConfigError          stop; a person must edit a file or an option
|-- NotPermitted         stop; the caller lacks the right
|-- DeviceError          this device only; keep the others going
|   |-- DeviceGone       drop it from the plan until it returns
|   `-- DeviceRefused    we lack the right or the value is out of range
`-- Unavailable          try again next tick; keep the last safe setpoint

Exit codes of every command: 0 done, 1 unforeseen, 2 usage (click), 3 ConfigError, 4 NotPermitted,
5 DeviceError, 6 Unavailable.
"""

from __future__ import annotations


class SlurmPowerError(Exception):
    """Base of every error we raise on purpose; its text is one line for a person."""

    exit_code = 1


class ConfigError(SlurmPowerError):
    exit_code = 3


class NotPermitted(SlurmPowerError):
    exit_code = 4


class DeviceError(SlurmPowerError):
    exit_code = 5


class DeviceGone(DeviceError):
    pass


class DeviceRefused(DeviceError):
    pass


class Unavailable(SlurmPowerError):
    exit_code = 6


def require(condition: bool, key: str, value: object, rule: str) -> None:
    """Raise ConfigError naming key, value and rule unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{key} = {value}: {rule}")
