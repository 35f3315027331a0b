"""The site as its own process: start, death, restart, clean end. In real time, so no test counts how much passes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from slurm_power.adapters.ess_sunspec import SunSpecEss, SunSpecEssConfig
from slurm_power.adapters.meter_sunspec import SunSpecMeter, SunSpecMeterConfig
from slurm_power.errors import ConfigError, DeviceRefused, Unavailable
from slurm_power.ess.setpoint import EssSetpoint
from slurm_power.testing.simulated_site.clock import HostClock
from slurm_power.testing.simulated_site.control import SiteControl
from slurm_power.testing.simulated_site.truth_log import read_truth

CONFIG = """
[site]
port = {port}
step_s = 0.05
truth_log = "{folder}/truth.csv"
ready_file = "{folder}/ready.json"
control_socket = "{folder}/site.sock"
node_state_files = ["{folder}/no-such-node/gpus.state"]
[load]
day_s = 120
mean_watts = 9000
peak_watts = 14000
[battery]
rated_joules = 7.2e6
max_charge_watts = 3000
max_discharge_watts = 4000
[pcs]
max_watts = 5000
ramp_percent_per_s = 1000
"""
PATIENCE_S = 60.0  # of a busy machine; nothing waits so long when all is well


class SiteProcess:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        (self.folder / "ready.json").unlink(missing_ok=True)
        (self.folder / "site.toml").write_text(CONFIG.format(folder=self.folder, port=self.port))
        self._child = run("--config", str(self.folder / "site.toml"))
        wait_until(lambda: (self.folder / "ready.json").exists())
        self.port = json.loads((self.folder / "ready.json").read_text())["port"]

    def end(self, number: signal.Signals) -> int:
        assert self._child is not None
        self._child.send_signal(number)
        code = self._child.wait(PATIENCE_S)
        self._child = None
        return code

    def ess(self) -> SunSpecEss:
        config = SunSpecEssConfig(host="127.0.0.1", port=self.port, timeout_s=5.0, revert_s=10.0)
        return SunSpecEss(config, clock=HostClock())

    def meter(self) -> SunSpecMeter:
        config = SunSpecMeterConfig(host="127.0.0.1", port=self.port, timeout_s=5.0, import_is_positive=True)
        return SunSpecMeter(config, clock=HostClock())

    def stop_what_is_left(self) -> None:
        if self._child is not None:
            self.end(signal.SIGKILL)


def run(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "slurm_power.testing.simulated_site", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_until(condition: object) -> None:
    assert callable(condition)
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.05)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SiteProcess]:
    process = SiteProcess(tmp_path)
    process.start()
    yield process
    process.stop_what_is_left()


def test_it_serves_writes_its_truth_and_ends_cleanly(site: SiteProcess) -> None:
    with closing(site.meter()) as meter:
        assert meter.read().import_watts > 0
    wait_until(lambda: len(read_truth(site.folder / "truth.csv")) >= 3)
    assert site.end(signal.SIGTERM) == 0
    rows = read_truth(site.folder / "truth.csv")
    assert [row.wall_s for row in rows] == sorted({row.wall_s for row in rows})
    assert all(row.grid_import_watts == pytest.approx(row.inflexible_watts, abs=0.01) for row in rows)
    assert not (site.folder / "ready.json").exists()
    assert not (site.folder / "site.sock").exists()


def test_a_killed_site_is_unavailable_and_found_again_after_its_restart(site: SiteProcess) -> None:
    with closing(site.ess()) as ess, closing(site.meter()) as meter:
        ess.read()
        meter.read()
        site.end(signal.SIGKILL)
        with pytest.raises(Unavailable):
            ess.read()
        with pytest.raises(Unavailable):
            meter.read()
        site.start()
        assert ess.read().discharge_watts == 0.0
        assert meter.read().import_watts > 0


def test_a_restarted_site_keeps_its_energy_and_its_log(site: SiteProcess) -> None:
    SiteControl(site.folder / "site.sock").do("jump-soc", stored_fraction=0.25)
    wait_until(lambda: read_truth(site.folder / "truth.csv")[-1].stored_joules < 0.3 * 7.2e6)
    rows = len(read_truth(site.folder / "truth.csv"))
    site.end(signal.SIGKILL)
    site.start()
    with closing(site.ess()) as ess:
        assert ess.read().stored_fraction == pytest.approx(0.25, abs=0.001)
    wait_until(lambda: len(read_truth(site.folder / "truth.csv")) > rows)


def test_a_restart_between_two_reads_goes_unnoticed(site: SiteProcess) -> None:
    with closing(site.ess()) as ess:
        ess.read()
        site.end(signal.SIGKILL)
        site.start()
        ess.command(EssSetpoint(discharge_watts=1000.0), revert_s=60.0)  # on the connection that has died
        wait_until(lambda: ess.read().discharge_watts == pytest.approx(1000.0, abs=1.0))


def test_the_dead_man_acts_in_real_time(site: SiteProcess) -> None:
    with closing(site.ess()) as ess:
        ess.command(EssSetpoint(discharge_watts=1000.0), revert_s=1.0)
        wait_until(lambda: any(row.battery_discharge_watts > 900.0 for row in read_truth(site.folder / "truth.csv")))
        wait_until(lambda: site_truth(site)["battery_discharge_watts"] == 0.0)


def site_truth(site: SiteProcess) -> dict[str, float]:
    return SiteControl(site.folder / "site.sock").do("truth")


def test_the_back_door_is_open_to_its_owner_only(site: SiteProcess) -> None:
    control = SiteControl(site.folder / "site.sock")
    assert control.do("jump-soc", stored_fraction=0.25)["stored_joules"] == pytest.approx(0.25 * 7.2e6 * 0.98, rel=1e-3)
    assert (site.folder / "site.sock").stat().st_mode & 0o777 == 0o600
    with pytest.raises(DeviceRefused, match="unknown order"):
        control.do("dance")


def test_a_frozen_meter_leaves_the_pcs_reachable(site: SiteProcess) -> None:
    SiteControl(site.folder / "site.sock").do("silence", unit=2, silent=True)
    config = SunSpecMeterConfig(host="127.0.0.1", port=site.port, timeout_s=0.3, import_is_positive=True)
    with closing(SunSpecMeter(config, clock=HostClock())) as meter, pytest.raises(Unavailable):
        meter.read()
    with closing(site.ess()) as ess:
        assert ess.read().remote_allowed


def test_a_stopped_process_is_unavailable_and_its_late_answers_are_not_mistaken(site: SiteProcess) -> None:
    config = SunSpecEssConfig(host="127.0.0.1", port=site.port, timeout_s=0.5, revert_s=10.0)
    with closing(SunSpecEss(config, clock=HostClock())) as ess:
        before = ess.read()
        assert site._child is not None
        os.kill(site._child.pid, signal.SIGSTOP)
        for _ in range(3):
            with pytest.raises(Unavailable):
                ess.read()
        os.kill(site._child.pid, signal.SIGCONT)
        wait_until(lambda: readable(ess))
        assert ess.read().capacity_joules == before.capacity_joules


def readable(ess: SunSpecEss) -> bool:
    try:
        ess.read()
    except Unavailable:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[load]\nday_s = 5\nmean_wats = 5", "[load] unknown key ['mean_wats']"),
        ("[pcs", "site.toml"),
        ("[load]\nday_s=1\nmean_watts=1\npeak_watts=2\ncsv_file='no.csv'\n[battery]\nrated_joules=1\n"
         "max_charge_watts=1\nmax_discharge_watts=1\n[pcs]\nmax_watts=1", "csv_file = no.csv"),
    ],
)  # fmt: skip
def test_a_bad_config_is_one_line_and_exit_code_3(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "site.toml").write_text(text)
    child = run("--config", str(tmp_path / "site.toml"))
    _, errors = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == ConfigError.exit_code
    assert message in errors.decode()
    assert errors.decode().count("\n") == 1
