"""What is particular to the SQLite store: one file, several processes, and everything that can go wrong with a file."""

from __future__ import annotations

import logging
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm_power.adapters.telemetry_sqlite import SqliteStore
from slurm_power.errors import Unavailable
from slurm_power.ports.telemetry_store import Point

NOON_S = 1_790_000_000.0
FLUSH_S = 20.0


def point(at_s: float, node: str = "n1") -> Point:
    return Point("gpu_power", NOON_S + at_s, {"draw_watts": 400.0 + at_s}, {"node": node})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "telemetry.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path, retention_s=9e9, flush_period_s=0.05, busy_timeout_s=0.1)
    yield store
    store.close()


def seconds_in(store: SqliteStore) -> list[float]:
    return [found.wall_s - NOON_S for found in store.read("gpu_power", since_wall_s=0)]


def test_points_outlive_the_process_that_wrote_them(path: Path, store: SqliteStore) -> None:
    store.write([point(0)])
    store.close()
    assert seconds_in(SqliteStore(path, retention_s=9e9)) == [0]


def test_old_points_are_deleted_in_small_steps_and_others_stay(path: Path) -> None:
    now_s = [NOON_S]
    store = SqliteStore(path, retention_s=600.0, flush_period_s=0.05, wall_s=lambda: now_s[0])
    store.write([point(index / 10, node=f"n{index % 7}") for index in range(4000)])
    assert store.flush(FLUSH_S)
    now_s[0] = NOON_S + 800.0
    store.write([point(800, node="n9")])
    assert store.flush(FLUSH_S)
    store.close()
    kept = seconds_in(store)
    assert kept[-1] == 800
    assert min(kept) >= 200 - 0.1
    assert len(kept) == 2001


def test_a_series_without_points_is_forgotten(path: Path) -> None:
    now_s = [NOON_S]
    store = SqliteStore(path, retention_s=10.0, flush_period_s=0.05, wall_s=lambda: now_s[0])
    store.write([point(0, node="old")])
    assert store.flush(FLUSH_S)
    now_s[0] = NOON_S + 1000
    store.write([point(1000, node="new")])
    store.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT tags FROM series").fetchall() == [('{"node":"new"}',)]


def gpu(at_s: float, uuid: str = "GPU-a") -> Point:
    fields = {"draw_watts": 100.0 + at_s % 10, "energy_joules": 500.0 * at_s}
    return Point("gpu", NOON_S + at_s, fields, {"uuid": uuid})


def test_old_samples_are_thinned_to_ten_seconds_then_to_a_minute(path: Path) -> None:
    now_s = [NOON_S]
    store = SqliteStore(path, retention_s=9e9, thinning=((600.0, 10.0), (1800.0, 60.0)), wall_s=lambda: now_s[0])
    store.write([gpu(second, uuid) for second in range(3000) for uuid in ("GPU-a", "GPU-b")])
    assert store.flush(FLUSH_S)
    now_s[0] = NOON_S + 3000
    store.prune()
    found = [(p.wall_s - NOON_S, p.fields) for p in store.read("gpu", since_wall_s=0, tags={"uuid": "GPU-b"})]
    minutes = [one for one in found if one[0] < 1180]
    tens = [one for one in found if 1180 <= one[0] < 2380]
    assert [round(fields.get("samples", 1)) for _, fields in minutes] == [40, *[60] * 19]
    assert {fields.get("samples") for _, fields in tens} == {10.0}
    assert len([one for one in found if one[0] >= 2380]) == 620
    assert all(fields["energy_joules"] == 500.0 * at_s for at_s, fields in found), "a counter keeps its time"
    assert minutes[3][1]["draw_watts"] == pytest.approx(104.5)
    assert sum(round(fields.get("samples", 1)) for _, fields in found) == 3000
    assert store.prune().merged == 0
    store.close()


def test_other_measurements_are_not_thinned(path: Path) -> None:
    now_s = [NOON_S]
    store = SqliteStore(path, retention_s=9e9, thinning=((600.0, 10.0),), wall_s=lambda: now_s[0])
    store.write([point(second) for second in range(100)])
    assert store.flush(FLUSH_S)
    now_s[0] = NOON_S + 3000
    assert store.prune().merged == 0
    assert len(seconds_in(store)) == 100
    store.close()


def test_a_clock_that_jumps_ahead_deletes_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wall_s, now_s = [NOON_S], [0.0]
    store = SqliteStore(path, retention_s=600.0, flush_period_s=0.05, wall_s=lambda: wall_s[0], now_s=lambda: now_s[0])
    store.write([point(0)])
    assert store.flush(FLUSH_S)
    store.prune()
    wall_s[0] += 10 * 365 * 86_400.0
    with pytest.raises(Unavailable, match="clock has just been set"):
        store.prune()
    assert seconds_in(store) == [0]
    assert "the wall clock was set by +315360000 s" in caplog.text
    wall_s[0] -= 10 * 365 * 86_400.0
    with pytest.raises(Unavailable):
        store.prune()
    wall_s[0] += 3601
    now_s[0] += 3601
    assert store.prune().deleted == 1
    store.close()


def test_a_locked_file_makes_points_wait_and_is_said_once(
    path: Path, store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.write([point(0)])
    assert store.flush(FLUSH_S)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with caplog.at_level(logging.WARNING):
        store.write([point(1)])
        assert not store.flush(0.5)
        assert not store.flush(0.5)
    assert store.pending() == 1
    other.execute("ROLLBACK")
    other.close()
    assert store.flush(FLUSH_S)
    assert seconds_in(store) == [0, 1]
    assert len([record for record in caplog.records if "database is locked" in record.message]) == 1


def test_above_the_bound_the_oldest_points_go_are_counted_and_that_is_said(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.mkdir()
    store = SqliteStore(path, retention_s=9e9, flush_period_s=0.05, memory_max_points=3)
    store.write([point(second) for second in range(5)])
    assert not store.flush(0.3)
    assert (store.pending(), store.dropped()) == (3, 2)
    assert "too many points wait; the oldest are dropped" in caplog.text
    path.rmdir()
    assert store.flush(FLUSH_S)
    store.close()
    assert seconds_in(store) == [2, 3, 4]


def test_points_that_cannot_be_kept_at_the_end_are_counted(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.mkdir()
    store = SqliteStore(path, retention_s=9e9, flush_period_s=0.05)
    store.write([point(0)])
    store.close()
    assert store.dropped() == 1
    assert "closed with 1 points" in caplog.text


def test_a_deleted_file_is_made_again(path: Path, store: SqliteStore) -> None:
    store.write([point(0)])
    assert store.flush(FLUSH_S)
    for file in path.parent.glob("telemetry.db*"):
        file.unlink()
    store.write([point(1)])
    assert store.flush(FLUSH_S)
    assert seconds_in(store) == [1]


@pytest.mark.parametrize("when", ["before-the-start", "while-open"])
def test_a_broken_file_is_put_aside_and_a_new_one_started(
    path: Path, store: SqliteStore, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    if when == "while-open":
        store.write([point(index) for index in range(2000)])
        assert store.flush(FLUSH_S)
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(b"not a database, " * 4096)
    store.write([point(5000)])
    assert store.flush(FLUSH_S)
    assert 5000 in seconds_in(store)
    (aside,) = (file for file in path.parent.glob("*.broken-*") if not file.name.endswith(("-wal", "-shm")))
    assert aside.read_bytes().startswith(b"not a database")
    assert str(aside) in caplog.text


def test_a_file_that_is_no_store_cannot_be_read(path: Path, store: SqliteStore) -> None:
    path.write_bytes(b"not a database, " * 4096)
    with pytest.raises(Unavailable, match=r"telemetry\.db: file is not a database"):
        store.read("gpu_power", since_wall_s=0)
    assert path.read_bytes().startswith(b"not a database"), "a reader changes nothing"


def run_writer(script: str, *args: object) -> subprocess.Popen[str]:
    header = """
    import sys, time
    from pathlib import Path
    from slurm_power.adapters.telemetry_sqlite import SqliteStore
    from slurm_power.ports.telemetry_store import Point
    path = Path(sys.argv[1])
    """
    code = textwrap.dedent(header) + textwrap.dedent(script)
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], stdout=subprocess.PIPE, text=True)


def test_several_processes_write_one_file(path: Path, store: SqliteStore) -> None:
    script = """
    store = SqliteStore(path, retention_s=9e9, flush_period_s=0.01)
    for index in range(100):
        store.write([Point("gpu_power", 1_790_000_000.0 + index, {"draw_watts": 1.0}, {"node": sys.argv[2]})])
        time.sleep(0.002)
    store.close()
    sys.exit(store.pending() or store.dropped())
    """
    writers = [run_writer(script, path, f"n{number}") for number in range(4)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    assert len(store.read("gpu_power", since_wall_s=0)) == 400


def test_a_killed_process_loses_only_what_it_had_not_flushed(path: Path, store: SqliteStore) -> None:
    script = """
    store = SqliteStore(path, retention_s=9e9, flush_period_s=3600.0)
    store.write([Point("gpu_power", 1_790_000_000.0, {"draw_watts": 1.0})])
    store.flush(20.0)
    store.write([Point("gpu_power", 1_790_000_001.0, {"draw_watts": 1.0})])
    print("written", flush=True)
    time.sleep(60)
    """
    writer = run_writer(script, path)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "written\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate(timeout=20)
    assert seconds_in(store) == [0]


def test_a_full_disk_makes_points_wait(path: Path, store: SqliteStore) -> None:
    """A file size limit stands in for the full disk: both fail the write system call."""
    script = """
    import resource
    store = SqliteStore(path, retention_s=9e9, flush_period_s=0.05)
    store.write([Point("gpu_power", 1_790_000_000.0, {"draw_watts": 1.0})])
    assert store.flush(20.0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, resource.RLIM_INFINITY))
    store.write([Point("gpu_power", 1_790_000_001.0 + index, {"note": "x" * 2000}) for index in range(200)])
    assert not store.flush(0.5)
    assert store.pending() == 200
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert store.flush(20.0)
    assert store.dropped() == 0
    store.close()
    """
    writer = run_writer(script, path)
    assert writer.wait(60) == 0
    assert len(store.read("gpu_power", since_wall_s=0)) == 201


def test_a_store_loads_without_numpy_for_agents_are_small() -> None:
    code = "import sys, slurm_power.adapters.telemetry_sqlite; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
