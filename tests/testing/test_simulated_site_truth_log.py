from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from slurm_power.testing.simulated_site.plant import Truth
from slurm_power.testing.simulated_site.truth_log import COLUMNS, TruthLog, read_truth

MOMENT = Truth(
    wall_s=1_700_000_000.25,
    grid_import_watts=9000.5,
    grid_export_watts=0.0,
    inflexible_watts=5000.0,
    it_watts=4000.0,
    cooling_watts=1000.0,
    battery_charge_watts=0.0,
    battery_discharge_watts=999.5,
    stored_joules=3_000_000.0,
)


def test_what_was_written_is_read_back_while_the_log_is_still_open(tmp_path: Path) -> None:
    with TruthLog(tmp_path / "truth.csv") as log:
        log.write(MOMENT)
        log.write(MOMENT)  # the same moment is one row
        log.write(replace(MOMENT, wall_s=MOMENT.wall_s + 0.25))
        rows = read_truth(tmp_path / "truth.csv")
    assert rows == [MOMENT, replace(MOMENT, wall_s=MOMENT.wall_s + 0.25)]


def test_a_torn_last_row_is_left_out(tmp_path: Path) -> None:
    with TruthLog(tmp_path / "truth.csv") as log:
        log.write(MOMENT)
    with (tmp_path / "truth.csv").open("a") as file:
        file.write("1700000001.0,90")
    assert read_truth(tmp_path / "truth.csv") == [MOMENT]


def test_a_new_log_goes_on_where_the_old_one_was_torn(tmp_path: Path) -> None:
    with TruthLog(tmp_path / "truth.csv") as log:
        log.write(MOMENT)
    with (tmp_path / "truth.csv").open("a") as file:
        file.write("1700000001.0,90")
    later = replace(MOMENT, wall_s=MOMENT.wall_s + 60.0)
    with TruthLog(tmp_path / "truth.csv") as log:
        log.write(later)
    assert read_truth(tmp_path / "truth.csv") == [MOMENT, later]


def test_the_columns_are_what_figures_are_made_from() -> None:
    assert COLUMNS == (
        "wall_s",
        "grid_import_watts",
        "grid_export_watts",
        "inflexible_watts",
        "it_watts",
        "cooling_watts",
        "battery_charge_watts",
        "battery_discharge_watts",
        "stored_joules",
    )
