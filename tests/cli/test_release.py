"""slurm-power release: everything with our mark, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from slurm_power.cli import release as command
from slurm_power.cli.main import slurm_power
from slurm_power.relocation.jobs import LicenseReservation
from slurm_power.testing.fake_clock import FakeClock
from slurm_power.testing.simulated_slurm import SimulatedSlurmClient

CONFIG = """[slurm]
partition = "main"
[relocation]
license_total_watts = 10000
gpu_max_watts = 700
gpu_idle_watts = 70
min_gpu_cap_watts = 200
node_base_watts = 500
"""


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> SimulatedSlurmClient:
    clock = FakeClock()
    client = SimulatedSlurmClient(clock, node_count=1)
    now_s = clock.wall_s()
    client.create_reservation(LicenseReservation("slurm_power_level_00", now_s + 60, now_s + 120, {"watts": 100}))
    client.create_reservation(LicenseReservation("maintenance", now_s + 60, now_s + 120, {"watts": 100}))
    monkeypatch.setattr(command, "slurm_client", lambda _: client)
    monkeypatch.setattr(command.time, "time", clock.wall_s)
    return client


def run(tmp_path: Path, *options: str) -> Result:
    file = tmp_path / "slurm-power.toml"
    file.write_text(CONFIG)
    return CliRunner().invoke(slurm_power, ["release", "--config", str(file), *options])


def names(slurm: SimulatedSlurmClient) -> set[str]:
    return {reservation.name for reservation in slurm.license_reservations()}


def test_only_what_carries_our_mark_is_given_back(slurm: SimulatedSlurmClient, tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.exit_code == 0, result.output
    assert "delete reservation slurm_power_level_00" in result.output
    assert names(slurm) == {"maintenance"}
    assert "nothing carries our mark" in run(tmp_path).output


def test_a_dry_run_changes_nothing(slurm: SimulatedSlurmClient, tmp_path: Path) -> None:
    assert "would give back: reservation slurm_power_level_00" in run(tmp_path, "--dry-run").output
    assert names(slurm) == {"slurm_power_level_00", "maintenance"}
