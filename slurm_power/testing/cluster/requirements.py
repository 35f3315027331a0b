"""What a machine must have before a cluster can start: one clear line for what is missing."""

from __future__ import annotations

import os
import shutil

from slurm_power.errors import ConfigError, NotPermitted

PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "scontrol": "slurm-client",
    "munged": "munge",
}
"""Programs and the Debian/Ubuntu packages that bring them."""

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def program(name: str) -> str:
    """Full path of a program; raise ConfigError naming the package."""
    found = shutil.which(name) or shutil.which(name, path=_SYSTEM_PATH)
    if found is None:
        raise ConfigError(missing_message([name]))
    return found


def check_machine() -> None:
    """Raise NotPermitted without root, ConfigError when packages are missing."""
    missing = [name for name in PACKAGES if not (shutil.which(name) or shutil.which(name, path=_SYSTEM_PATH))]
    if missing:
        raise ConfigError(missing_message(missing))
    if os.geteuid() != 0:
        raise NotPermitted("a development cluster starts jobs of several users and needs root: run it with sudo")


def missing_message(programs: list[str]) -> str:
    packages = " ".join(sorted({PACKAGES[name] for name in programs}))
    return (
        f"{', '.join(programs)} not found: install Slurm and munge with "
        f"`apt-get install --no-install-recommends {packages}`"
    )
