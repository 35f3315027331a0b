"""Which boot of this machine it is: power limits do not survive one."""

from __future__ import annotations

from pathlib import Path

from slurm_power.errors import Unavailable


def read_boot_id(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise Unavailable(f"{path}: cannot read the boot id: {cause}") from cause
