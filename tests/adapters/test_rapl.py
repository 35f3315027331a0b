"""The powercap tree as kernels lay it out; a folder stands for /sys/class/powercap."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm_power.adapters.rapl import Rapl
from slurm_power.errors import Unavailable
from slurm_power.monitoring.energy_counters import watts_between
from slurm_power.testing.fake_clock import FakeClock

RANGE_UJ = 262_143_328_850


def zone(root: Path, folder: str, name: str, energy_uj: int, range_uj: int = RANGE_UJ) -> Path:
    (root / folder).mkdir(exist_ok=True)
    for file, value in (("name", name), ("energy_uj", energy_uj), ("max_energy_range_uj", range_uj)):
        (root / folder / file).write_text(f"{value}\n")
    return root / folder


@pytest.fixture
def two_sockets(tmp_path: Path) -> Path:
    """Two Xeons: cores and memory below each package, the platform beside them, the packages once more by MMIO."""
    (tmp_path / "intel-rapl").mkdir()
    (tmp_path / "dtpm").mkdir()
    for socket in (0, 1):
        zone(tmp_path, f"intel-rapl:{socket}", f"package-{socket}", 1_000_000 * (socket + 1))
        zone(tmp_path, f"intel-rapl:{socket}:0", "core", 500_000_000)
        zone(tmp_path, f"intel-rapl:{socket}:1", "dram", 10_000_000 * (socket + 1), 65_712_999_613)
    zone(tmp_path, "intel-rapl:2", "psys", 900_000_000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1_000_000)
    return tmp_path


def test_packages_and_memory_are_counted_and_nothing_twice(two_sockets: Path) -> None:
    counters = Rapl(clock=FakeClock(), powercap_root=two_sockets).read().counters
    assert {name: counter.joules for name, counter in counters.items()} == {
        "package-0": 1.0,
        "package-0 dram": 10.0,
        "package-1": 2.0,
        "package-1 dram": 20.0,
    }
    assert counters["package-0"].wraps_joules == pytest.approx(262_143.328850)


def test_an_amd_package_has_cores_only_below_it(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000, 65_532_610_987)
    zone(tmp_path, "intel-rapl:0:0", "core", 1_000_000, 65_532_610_987)
    assert list(Rapl(clock=FakeClock(), powercap_root=tmp_path).read().counters) == ["package-0"]


def test_two_readings_give_watts_also_when_a_counter_started_over(two_sockets: Path) -> None:
    clock = FakeClock()
    rapl = Rapl(clock=clock, powercap_root=two_sockets)
    zone(two_sockets, "intel-rapl:0", "package-0", RANGE_UJ - 100_000_000)
    before = rapl.read()
    clock.advance(2.0)
    zone(two_sockets, "intel-rapl:0", "package-0", 300_000_000)
    zone(two_sockets, "intel-rapl:1:1", "dram", 20_000_000 + 40_000_000, 65_712_999_613)
    assert watts_between(before, rapl.read(), most_watts=1000.0) == pytest.approx((400.0 + 40.0) / 2.0)


def test_a_machine_without_counters_is_unavailable_not_zero(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(Unavailable, match="no package zone"):
            Rapl(clock=FakeClock(), powercap_root=root).read()


def test_counters_that_only_root_may_read_say_so(two_sockets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, whom no mode keeps out."""
    read_text = Path.read_text

    def as_a_user(file: Path) -> str:
        if file.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(file))
        return read_text(file)

    monkeypatch.setattr(Path, "read_text", as_a_user)
    with pytest.raises(Unavailable, match=r"intel-rapl:0/energy_uj: only root may read it"):
        Rapl(clock=FakeClock(), powercap_root=two_sockets).read()


def test_one_unreadable_part_makes_the_sum_unavailable(two_sockets: Path) -> None:
    (two_sockets / "intel-rapl:1:1" / "energy_uj").write_text("no idea\n")
    with pytest.raises(Unavailable, match="holds no number but 'no idea'"):
        Rapl(clock=FakeClock(), powercap_root=two_sockets).read()
    (two_sockets / "intel-rapl:1:1" / "energy_uj").unlink()
    with pytest.raises(Unavailable, match="No such file"):
        Rapl(clock=FakeClock(), powercap_root=two_sockets).read()
