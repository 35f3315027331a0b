"""Energy of this node's CPUs and memory from the kernel's powercap tree (RAPL), Intel's and AMD's.

Not the node: fans, drives, network, power supplies and GPUs are not in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from slurm_power.errors import Unavailable
from slurm_power.monitoring.energy_counters import EnergyCounter, EnergyReading
from slurm_power.ports.clock import Clock
from slurm_power.units import joules_from_microjoules

POWERCAP_ROOT = Path("/sys/class/powercap")


class Rapl:
    """Every package, and memory where it is counted apart. Counted in a package already, so left out: cores and
    graphics. Left out too: psys (the whole platform) and intel-rapl-mmio (the packages once more)."""

    def __init__(self, *, clock: Clock, powercap_root: Path = POWERCAP_ROOT) -> None:
        self._clock, self._root = clock, powercap_root

    def read(self) -> EnergyReading:
        """Raise Unavailable when there is no counter, or none that we may read (since 2020 only root may)."""
        counters = {}
        taken_at_s = self._clock.now_s()
        for name, zone in self._zones():
            counters[name] = EnergyCounter(
                joules=_joules(zone / "energy_uj"), wraps_joules=_joules(zone / "max_energy_range_uj")
            )
        if not counters:
            raise Unavailable(f"RAPL: no package zone under {self._root}")
        return EnergyReading(counters, taken_at_s)

    def _zones(self) -> Iterator[tuple[str, Path]]:
        for zone in sorted(self._root.glob("intel-rapl:*")):
            name = _text(zone / "name")
            depth = zone.name.count(":")
            if depth == 1 and name.startswith("package"):
                yield name, zone
            elif depth == 2 and name == "dram":
                yield f"{_text(self._root / zone.name.rpartition(':')[0] / 'name')} {name}", zone


def _joules(file: Path) -> float:
    text = _text(file)
    try:
        return joules_from_microjoules(float(int(text)))
    except ValueError as cause:
        raise Unavailable(f"RAPL: {file} holds no number but {text[:40]!r}") from cause


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except PermissionError as cause:
        raise Unavailable(f"RAPL: {file}: only root may read it") from cause
    except (OSError, UnicodeDecodeError) as cause:
        raise Unavailable(f"RAPL: {file}: {cause}") from cause
