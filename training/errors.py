"""Errors of a training run, grouped by what the caller should do; exit codes as slurm-power's own commands use them.

TrainingError            1  unforeseen
|-- ConfigError          3  stop; a person must edit a file or an option
|-- NumericsError        5  stop; a value that must be finite is not
|-- StorageError         5  this save failed; the last good checkpoint is untouched
`-- Unavailable          6  a peer or a service did not answer in time
"""

from __future__ import annotations


class TrainingError(Exception):
    """Base of every error we raise on purpose; its text is one line for a person."""

    exit_code = 1


class ConfigError(TrainingError):
    exit_code = 3


class NumericsError(TrainingError):
    exit_code = 5


class StorageError(TrainingError):
    exit_code = 5


class Unavailable(TrainingError):
    exit_code = 6


def require(condition: bool, key: str, value: object, rule: str) -> None:
    """Raise ConfigError naming key, value and rule unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{key} = {value}: {rule}")
