"""The book of what jobs draw: kept over restarts, written for job_submit.lua, no reason to stop."""

from __future__ import annotations

import stat
from functools import partial
from pathlib import Path

import pytest

from slurm_power.adapters.table_file import write_table
from slurm_power.daemons.job_watts_book import JobWattsBook
from slurm_power.errors import Unavailable
from slurm_power.relocation.job_watts import MIN_TICKS
from slurm_power.testing.fake_journal import FakeJournal
from tests.relocation.test_job_watts import power


def run_jobs(book: JobWattsBook, *job_ids: int) -> None:
    for job_id in job_ids:
        for _ in range(MIN_TICKS):
            book.observe([power(job_id, gpu_watts=300.0)])
        book.observe([])


def test_a_restarted_controller_goes_on_with_what_it_had_learned(tmp_path: Path) -> None:
    journal, table = FakeJournal(), tmp_path / "job_watts"
    run_jobs(JobWattsBook(journal, write_table=None, gpu_max_watts=700.0), 1, 2)
    run_jobs(JobWattsBook(journal, write_table=partial(write_table, table), gpu_max_watts=700.0), 3)
    assert table.read_text() == "7 train 315\n"
    assert stat.S_IMODE(table.stat().st_mode) == 0o644


def test_a_table_that_cannot_be_written_is_told_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    book = JobWattsBook(
        FakeJournal(), write_table=partial(write_table, tmp_path / "missing" / "job_watts"), gpu_max_watts=700.0
    )
    run_jobs(book, 1, 2, 3)
    assert "cannot write the table" in caplog.text


def test_a_table_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "job_watts.new").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unavailable, match="cannot write the table"):
        write_table(tmp_path / "job_watts", "text")
