"""What is particular to the InfluxDB store: the spool, the delivery, and a real server that comes and goes."""

from __future__ import annotations

import logging
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from slurm_power.adapters.telemetry_delivery import Delivery, Refused, send_around_refused
from slurm_power.adapters.telemetry_influxdb import InfluxStore
from slurm_power.adapters.telemetry_influxdb_upkeep import InfluxUpkeep
from slurm_power.adapters.telemetry_spool import Spool
from slurm_power.errors import Unavailable
from slurm_power.ports.telemetry_store import Point
from slurm_power.testing.influxdb_server import InfluxDbServer, find_program

NOON_S = 1_790_000_000.0
FLUSH_S = 20.0
NOBODY = "http://127.0.0.1:9"

real_server = [
    pytest.mark.influxdb,
    pytest.mark.xdist_group("influxdb"),
    pytest.mark.skipif(
        not all(map(find_program, ("influxd", "nginx"))), reason="influxdb or nginx-light is not installed"
    ),
]


def point(at_s: float, value: float | str = 1.0) -> Point:
    return Point("gpu_power", NOON_S + at_s, {"draw_watts": value})


def new_store(url: str, spool: Path, database: str = "telemetry", **options: float) -> InfluxStore:
    quick = {"flush_period_s": 0.05, "backoff_max_s": 0.2, "timeout_s": 5.0}
    return InfluxStore(url=url, org="o", database=database, token="", spool=spool, **{**quick, **options})  # type: ignore[arg-type]


class PickyServer:
    """Keeps what it is sent; refuses a request that holds a line with "bad"."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.up = True

    def send(self, lines: Sequence[str]) -> None:
        if not self.up:
            raise Unavailable("down")
        if any("bad" in line for line in lines):
            raise Refused("400 unable to parse")
        self.kept += lines


def test_bad_lines_are_set_aside_and_the_others_delivered_in_order() -> None:
    server, aside = PickyServer(), []
    lines = ["a", "bad 1", "b", "c", "bad 2", "d", "bad 3"]
    send_around_refused(server.send, lines, lambda line, reason: aside.append((line, reason)))
    assert server.kept == ["a", "b", "c", "d"]
    assert aside == [(f"bad {number}", "400 unable to parse") for number in (1, 2, 3)]


def test_a_full_spool_drops_the_oldest_lines(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db", max_lines=3)
    assert spool.append(["1", "2"]) == 0
    assert spool.append(["3", "4", "5"]) == 2
    assert [line for batch in spool.oldest(10) for line in batch.lines] == ["3", "4", "5"]
    assert spool.count() == 3


def test_a_full_spool_is_said_once_and_its_losses_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = new_store(NOBODY, tmp_path / "spool.db", spool_max_points=3)
    with caplog.at_level(logging.WARNING):
        for second in range(6):
            store.write([point(second)])
            assert not store.flush(0.2)
    assert (store.pending(), store.dropped()) == (3, 3)
    assert len([record for record in caplog.records if "the oldest are dropped" in record.message]) == 1
    store.close()


def test_an_emptied_spool_counts_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db", max_lines=3)
    spool.append(["1", "2"])
    spool.remove(spool.oldest(10))
    assert spool.count() == 0


def test_delivery_keeps_the_order_over_an_outage_and_says_it_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server, spool = PickyServer(), Spool(tmp_path / "spool.db", max_lines=100)
    server.up = False
    delivery = Delivery(spool, server.send, name="store", backoff_max_s=0.02)
    delivery.start()
    with caplog.at_level(logging.WARNING):
        for line in ("a", "b", "bad", "c"):
            spool.append([line])
            delivery.hurry()
        server.up = True
        while spool.count():
            delivery.hurry()
    delivery.close(FLUSH_S)
    assert server.kept == ["a", "b", "c"]
    assert delivery.refused() == 1
    assert len([record for record in caplog.records if "points wait on disk" in record.message]) <= 1


def test_the_wait_between_tries_grows_to_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    delivery = Delivery(Spool(tmp_path / "s", max_lines=1), PickyServer().send, name="store", backoff_max_s=3.0)
    assert [delivery._next_backoff_s() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_without_a_server_points_wait_on_disk_and_reads_are_unavailable(tmp_path: Path) -> None:
    store = new_store(NOBODY, tmp_path / "spool.db")
    store.write([point(0), point(1)])
    assert not store.flush(0.5)
    assert store.pending() == 2
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        store.read("gpu_power", since_wall_s=0)
    store.close()
    assert store.dropped() == 0
    with sqlite3.connect(tmp_path / "spool.db") as connection:
        assert connection.execute("SELECT sum(count) FROM batches").fetchone() == (2,)


def test_a_store_only_read_from_makes_no_spool(tmp_path: Path) -> None:
    store = new_store(NOBODY, tmp_path / "spool.db")
    assert store.pending() == 0
    assert store.flush(1.0)
    store.close()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxDbServer]:
    with InfluxDbServer(tmp_path_factory.mktemp("influxdb")) as server:
        yield server


@pytest.fixture
def database(server: InfluxDbServer, tmp_path: Path) -> str:
    server.start()
    server.create_database(tmp_path.name)
    return tmp_path.name


def seconds_in(store: InfluxStore) -> list[float]:
    return [found.wall_s - NOON_S for found in store.read("gpu_power", since_wall_s=0)]


class TestRealServer:
    pytestmark = real_server

    def test_points_of_a_killed_process_are_delivered_by_the_next(
        self, server: InfluxDbServer, database: str, tmp_path: Path
    ) -> None:
        spool = tmp_path / "spool.db"
        server.stop_database()
        script = """
        import sys, time
        from pathlib import Path
        from slurm_power.adapters.telemetry_influxdb import InfluxStore
        from slurm_power.ports.telemetry_store import Point
        url, database, spool = sys.argv[1:]
        store = InfluxStore(url=url, org="o", database=database, token="", spool=Path(spool), flush_period_s=0.05)
        store.write([Point("gpu_power", 1_790_000_000.0 + index, {"draw_watts": 1.0}) for index in range(100)])
        store.flush(0.5)
        print(store.pending(), flush=True)
        time.sleep(60)
        """
        argv = [sys.executable, "-c", textwrap.dedent(script), server.url, database, str(spool)]
        writer = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "100\n"
        writer.send_signal(signal.SIGKILL)
        writer.communicate(timeout=20)
        server.start()
        store = new_store(server.url, spool, database)
        assert store.flush(FLUSH_S)
        assert seconds_in(store) == list(range(100))
        store.close()

    @pytest.mark.parametrize("part", ["database", "front"])
    def test_a_server_that_comes_and_goes_loses_and_doubles_nothing(
        self, server: InfluxDbServer, database: str, tmp_path: Path, part: str
    ) -> None:
        store = new_store(server.url, tmp_path / "spool.db", database)
        for second in range(60):
            store.write([point(second), point(second + 0.5)])
            if second in (10, 40):
                (server.stop_database if part == "database" else server.stop_front)()
            if second in (20, 50):
                assert not store.flush(0.3)
                server.start()
        assert store.flush(FLUSH_S)
        assert seconds_in(store) == [half / 2 for half in range(120)]
        assert store.dropped() == 0
        store.close()

    def test_a_refused_point_is_set_aside_and_said(
        self, server: InfluxDbServer, database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = new_store(server.url, tmp_path / "spool.db", database)
        store.write([point(0)])
        assert store.flush(FLUSH_S)
        store.write([point(1), point(2, "four hundred"), point(3)])
        assert store.flush(FLUSH_S)
        assert seconds_in(store) == [0, 1, 3]
        assert store.dropped() == 1
        assert "field type conflict" in caplog.text
        store.close()
        with sqlite3.connect(tmp_path / "spool.db") as connection:
            ((line, reason),) = connection.execute("SELECT line, reason FROM set_aside").fetchall()
        assert "four hundred" in line
        assert "field type conflict" in reason

    def test_points_wait_for_a_database_that_is_not_there_yet(
        self, server: InfluxDbServer, database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = new_store(server.url, tmp_path / "spool.db", f"{database}-later")
        store.write([point(0)])
        assert not store.flush(0.5)
        assert "database not found" in caplog.text
        server.create_database(f"{database}-later")
        assert store.flush(FLUSH_S)
        assert seconds_in(store) == [0]
        store.close()

    def test_more_points_than_one_request_holds(self, server: InfluxDbServer, database: str, tmp_path: Path) -> None:
        store = new_store(server.url, tmp_path / "spool.db", database)
        store.write([point(index / 10, float(index)) for index in range(12_000)])
        assert store.flush(FLUSH_S)
        assert len(seconds_in(store)) == 12_000
        newest = store.read("gpu_power", since_wall_s=NOON_S, limit=2)
        assert [found.fields["draw_watts"] for found in newest] == [11_998.0, 11_999.0]
        store.close()

    def test_old_samples_are_thinned_and_read_as_before(
        self, server: InfluxDbServer, database: str, tmp_path: Path
    ) -> None:
        store = new_store(server.url, tmp_path / "spool.db", database)
        begin_s = NOON_S - NOON_S % 60
        for uuid in ("GPU-a", "GPU-b"):
            fields = [
                {"draw_watts": 100.0 + s % 10, "energy_joules": 500.0 * s, "cap_source": "found"} for s in range(600)
            ]
            store.write([Point("gpu", begin_s + s, one, {"uuid": uuid}) for s, one in enumerate(fields)])
        assert store.flush(FLUSH_S)
        upkeep = InfluxUpkeep(
            store, thinning=((120.0, 10.0), (360.0, 60.0)), window_s=60.0, wall_s=lambda: begin_s + 600.0
        )
        assert upkeep.all().merged == 2 * 480 + 2 * 24
        found = [(p.wall_s - begin_s, p.fields) for p in store.read("gpu", since_wall_s=0, tags={"uuid": "GPU-b"})]
        assert [fields.get("samples", 1) for _, fields in found] == [60.0] * 4 + [10.0] * 24 + [1] * 120
        assert all(fields["energy_joules"] == 500.0 * at_s for at_s, fields in found), "a counter keeps its time"
        assert found[10][1]["draw_watts"] == pytest.approx(104.5)
        assert upkeep.all().merged == 0
        assert store.retention_words() == ["autogen: for ever"]
        assert [p.wall_s - begin_s for p in store.read("gpu", since_wall_s=0, limit=2)] == [599, 599]
        store.close()

    def test_nothing_of_ours_runs_after_stop(self, tmp_path: Path) -> None:
        with InfluxDbServer(tmp_path / "one") as server:
            url = server.url
            assert server.answers()
        assert not server.answers()
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, trust_env=False)
