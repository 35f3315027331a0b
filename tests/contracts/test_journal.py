"""Every journal: what is written is there, whole, at the next load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from slurm_power.adapters.journal_file import FileJournal
from slurm_power.errors import Unavailable
from slurm_power.ports.journal import Journal, Record
from slurm_power.testing.fake_journal import FakeJournal

RECORDS: list[Record] = [
    {"kind": "loan", "uuid": "GPU-a", "found": 600.5, "job_id": 7, "clock": None},
    {"kind": "job", "text": 'quotes " and \n newlines and ü', "flag": True},
]


@pytest.fixture(params=["fake", "file"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    return FakeJournal() if request.param == "fake" else FileJournal(tmp_path / "journal.jsonl")


def test_a_new_journal_is_empty(journal: Journal) -> None:
    assert journal.load() == []


def test_records_come_back_in_order(journal: Journal) -> None:
    journal.write(RECORDS)
    assert journal.load() == RECORDS


def test_a_write_replaces_everything(journal: Journal) -> None:
    journal.write(RECORDS)
    journal.write(RECORDS[:1])
    assert journal.load() == RECORDS[:1]
    journal.write([])
    assert journal.load() == []


def full_fake(_folder: Path) -> Journal:
    journal = FakeJournal()
    journal.write(RECORDS)
    journal.disk_full = True
    return journal


def full_file(folder: Path) -> Journal:
    FileJournal(folder / "journal.jsonl").write(RECORDS)
    # A folder in the way of the new file refuses the write for root as well, as a full disk does.
    (folder / "journal.jsonl.new").mkdir()
    return FileJournal(folder / "journal.jsonl")


@pytest.mark.parametrize("make", [full_fake, full_file])
def test_a_disk_that_refuses_leaves_the_old_content(make: Callable[[Path], Journal], tmp_path: Path) -> None:
    journal = make(tmp_path)
    with pytest.raises(Unavailable):
        journal.write([])
    assert journal.load() == RECORDS


def test_a_torn_last_record_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    FileJournal(file).write(RECORDS)
    file.write_bytes(file.read_bytes()[:-5])
    assert FileJournal(file).load() == RECORDS[:1]


@pytest.mark.parametrize("line", ["garbage", "[1]", '{"a": [1]}'])
def test_a_damaged_record_is_never_skipped_silently(line: str, tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    file.write_text(line + '\n{"kind": "loan"}\n')
    with pytest.raises(Unavailable, match="line 1 of the journal is damaged"):
        FileJournal(file).load()


def test_a_journal_that_cannot_be_read_is_unavailable_not_empty(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        FileJournal(tmp_path).load()


def test_only_its_owner_can_read_the_file(tmp_path: Path) -> None:
    FileJournal(tmp_path / "journal.jsonl").write(RECORDS)
    assert (tmp_path / "journal.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_link_in_place_of_the_new_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "journal.jsonl.new").symlink_to(victim)
    with pytest.raises(Unavailable):
        FileJournal(tmp_path / "journal.jsonl").write(RECORDS)
    assert victim.read_text() == "precious"
