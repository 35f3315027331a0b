"""What every telemetry store must do. Add a store: give it a `Bench` below."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slurm_power.adapters.telemetry_influxdb import InfluxStore
from slurm_power.adapters.telemetry_sqlite import SqliteStore
from slurm_power.errors import Unavailable
from slurm_power.ports.telemetry_store import Point, TelemetryStore
from slurm_power.testing.influxdb_server import InfluxDbServer, find_program
from slurm_power.testing.memory_store import MemoryStore

NOON_S = 1_790_000_000.0
FLUSH_S = 20.0


@dataclass(frozen=True)
class Bench:
    store: TelemetryStore
    break_off: Callable[[], None]
    mend: Callable[[], None]


def _memory_bench(tmp_path: Path) -> Iterator[Bench]:
    store = MemoryStore()
    yield Bench(store, store.break_off, store.mend)


def _sqlite_bench(tmp_path: Path) -> Iterator[Bench]:
    """An outage: something else lies where the folder of the file should be."""
    folder, away = tmp_path / "store", tmp_path / "away"
    store = SqliteStore(folder / "telemetry.db", retention_s=9e9, flush_period_s=0.05)

    def break_off() -> None:
        if folder.exists():
            folder.rename(away)
        folder.write_text("not a folder")

    def mend() -> None:
        folder.unlink()
        if away.exists():
            away.rename(folder)

    yield Bench(store, break_off, mend)
    store.close()


@pytest.fixture(scope="session")
def influxdb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxDbServer]:
    with InfluxDbServer(tmp_path_factory.mktemp("influxdb")) as server:
        yield server


def _influxdb_bench(tmp_path: Path, server: InfluxDbServer) -> Iterator[Bench]:
    database = tmp_path.name
    server.create_database(database)
    store = InfluxStore(
        url=server.url,
        org="tests",
        database=database,
        token="",
        spool=tmp_path / "spool.db",
        flush_period_s=0.05,
        backoff_max_s=0.2,
    )
    yield Bench(store, server.stop_database, server.start)
    store.close()


INFLUXDB = [
    pytest.mark.influxdb,
    pytest.mark.xdist_group("influxdb"),
    pytest.mark.skipif(
        not all(map(find_program, ("influxd", "nginx"))), reason="influxdb or nginx-light is not installed"
    ),
]


@pytest.fixture(params=["memory", "sqlite", pytest.param("influxdb", marks=INFLUXDB)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    match request.param:
        case "memory":
            yield from _memory_bench(tmp_path)
        case "sqlite":
            yield from _sqlite_bench(tmp_path)
        case _:
            yield from _influxdb_bench(tmp_path, request.getfixturevalue("influxdb_server"))


@pytest.fixture
def store(bench: Bench) -> TelemetryStore:
    return bench.store


def gpu_point(at_s: float, draw_watts: float = 400.0, **tags: str) -> Point:
    return Point("gpu_power", NOON_S + at_s, {"draw_watts": draw_watts}, tags)


def test_a_written_point_reads_back(store: TelemetryStore) -> None:
    point = Point(
        "gpu_power",
        NOON_S + 0.123456,
        {"draw_watts": 412.5, "state": "busy", "capped": True},
        {"node": "n1", "gpu": "G-1"},
    )
    store.write([point])
    assert store.flush(FLUSH_S)
    assert store.read("gpu_power", since_wall_s=NOON_S) == [point]


def test_a_store_without_points_reads_as_nothing(store: TelemetryStore) -> None:
    assert store.read("gpu_power", since_wall_s=0) == []
    assert store.pending() == 0
    assert store.flush(FLUSH_S)


def test_the_window_holds_its_start_but_not_its_end(store: TelemetryStore) -> None:
    store.write([gpu_point(second) for second in range(5)])
    assert store.flush(FLUSH_S)
    found = store.read("gpu_power", since_wall_s=NOON_S + 1, until_wall_s=NOON_S + 3)
    assert [point.wall_s - NOON_S for point in found] == [1, 2]


def test_points_come_in_time_order_across_series(store: TelemetryStore) -> None:
    store.write([gpu_point(second, gpu=f"G-{second % 3}") for second in (4, 0, 3, 1, 2)])
    assert store.flush(FLUSH_S)
    assert [point.wall_s - NOON_S for point in store.read("gpu_power", since_wall_s=NOON_S)] == [0, 1, 2, 3, 4]


def test_a_limit_keeps_the_newest(store: TelemetryStore) -> None:
    store.write([gpu_point(second, gpu=f"G-{second % 3}") for second in range(10)])
    assert store.flush(FLUSH_S)
    found = store.read("gpu_power", since_wall_s=NOON_S, limit=4)
    assert [point.wall_s - NOON_S for point in found] == [6, 7, 8, 9]
    assert store.read("gpu_power", since_wall_s=NOON_S, limit=0) == []


def test_tags_select_the_points_that_include_them(store: TelemetryStore) -> None:
    store.write([gpu_point(0, node="n1", gpu="G-1"), gpu_point(1, node="n2", gpu="G-2"), gpu_point(2, node="n2")])
    assert store.flush(FLUSH_S)

    def seconds(**tags: str) -> list[float]:
        return [point.wall_s - NOON_S for point in store.read("gpu_power", since_wall_s=NOON_S, tags=tags)]

    assert seconds(node="n2") == [1, 2]
    assert seconds(node="n2", gpu="G-2") == [1]
    assert seconds(node="n3") == []
    assert seconds(rack="r1") == []
    assert seconds(node="n2", gpu="") == [2], "an empty value asks for points without the tag"


def test_measurements_are_kept_apart(store: TelemetryStore) -> None:
    store.write([gpu_point(0), Point("meter", NOON_S, {"grid_import_watts": 9e5})])
    assert store.flush(FLUSH_S)
    assert [point.measurement for point in store.read("meter", since_wall_s=NOON_S)] == ["meter"]
    assert store.read("nobody", since_wall_s=NOON_S) == []


def test_the_same_point_twice_is_one_point_with_merged_fields(store: TelemetryStore) -> None:
    store.write([Point("job", NOON_S, {"energy_joules": 1.0, "state": "RUNNING"}, {"job": "7"})])
    assert store.flush(FLUSH_S)
    store.write([Point("job", NOON_S, {"energy_joules": 2.0, "nodes": 3}, {"job": "7"})])
    store.write([Point("job", NOON_S, {"energy_joules": 5.0}, {"job": "7"})])
    assert store.flush(FLUSH_S)
    (point,) = store.read("job", since_wall_s=NOON_S)
    assert point.fields == {"energy_joules": 5.0, "state": "RUNNING", "nodes": 3}


def test_the_order_in_which_tags_are_given_does_not_matter(store: TelemetryStore) -> None:
    store.write([gpu_point(0, 1.0, a="1", b="2"), gpu_point(0, 2.0, b="2", a="1")])
    assert store.flush(FLUSH_S)
    assert [point.fields["draw_watts"] for point in store.read("gpu_power", since_wall_s=NOON_S)] == [2.0]


def test_whole_and_broken_numbers_may_share_a_field(store: TelemetryStore) -> None:
    store.write([gpu_point(0, 300), gpu_point(1, 300.5)])
    store.write([gpu_point(2, 2**53)])
    assert store.flush(FLUSH_S)
    values = [point.fields["draw_watts"] for point in store.read("gpu_power", since_wall_s=NOON_S)]
    assert values == [300, 300.5, 2**53]
    assert store.dropped() == 0


def test_a_text_of_almost_64_kib_reads_back_whole(store: TelemetryStore) -> None:
    """As a block of sealed samples may be; InfluxDB takes no longer ones."""
    text = "aB3+/=" * (65_500 // 6)
    store.write([Point("gpu_block", NOON_S, {"columns": text, "samples": 800.0})])
    assert store.flush(FLUSH_S)
    (point,) = store.read("gpu_block", since_wall_s=NOON_S)
    assert point.fields["columns"] == text


def test_unknown_numbers_are_left_out(store: TelemetryStore) -> None:
    store.write([Point("gpu_power", NOON_S, {"draw_watts": math.nan, "cap_watts": 700.0, "limit_watts": math.inf})])
    assert store.flush(FLUSH_S)
    (point,) = store.read("gpu_power", since_wall_s=NOON_S)
    assert point.fields == {"cap_watts": 700.0}
    assert store.dropped() == 0


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(Point("gpu_power", NOON_S, {"draw_watts": math.nan}), id="nothing-known"),
        pytest.param(Point("gpu_power", NOON_S, {}), id="no-field"),
        pytest.param(Point("gpu_power", math.nan, {"draw_watts": 1.0}), id="no-time"),
        pytest.param(Point('gpu"; DROP', NOON_S, {"draw_watts": 1.0}), id="bad-measurement"),
        pytest.param(Point("gpu_power", NOON_S, {"draw watts": 1.0}), id="bad-field-name"),
        pytest.param(Point("gpu_power", NOON_S, {"time": 1.0}), id="reserved-name"),
        pytest.param(Point("gpu_power", NOON_S, {"gpu": 1.0}, {"gpu": "G-1"}), id="field-and-tag-of-one-name"),
    ],
)
def test_a_point_that_cannot_be_kept_is_counted_and_stops_no_other(store: TelemetryStore, point: Point) -> None:
    store.write([point, gpu_point(1)])
    assert store.flush(FLUSH_S)
    assert store.dropped() == 1
    assert store.read("gpu_power", since_wall_s=0) == [gpu_point(1)]


def test_points_written_during_an_outage_arrive_once(bench: Bench) -> None:
    store = bench.store
    store.write([gpu_point(0)])
    assert store.flush(FLUSH_S)
    bench.break_off()
    store.write([gpu_point(1), gpu_point(2)])
    assert not store.flush(0.3)
    store.write([gpu_point(2), gpu_point(3)])
    assert store.pending() >= 3
    with pytest.raises(Unavailable):
        store.read("gpu_power", since_wall_s=NOON_S)
    bench.mend()
    assert store.flush(FLUSH_S)
    assert store.pending() == 0
    assert store.read("gpu_power", since_wall_s=NOON_S) == [gpu_point(second) for second in range(4)]
    assert store.dropped() == 0


HOSTILE = st.text(st.sampled_from(" ,=\"'\\\n\r\t%{}[]$#;|<>&aé漢😀\u2028\x00\x1f\x7f0") | st.characters(), max_size=24)
VALUES = (
    st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.0, -0.0, 5e-324, 1.7976931348623157e308, 1e-300, 0.1 + 0.2])
)


def test_a_tag_is_not_found_inside_another_tags_value(store: TelemetryStore) -> None:
    store.write(
        [gpu_point(0, job_name='","user":"ann"'), gpu_point(1, job_name='"user":""'), gpu_point(2, user="ann\x00")]
    )
    assert store.flush(FLUSH_S)

    def seconds(user: str) -> list[float]:
        return [point.wall_s - NOON_S for point in store.read("gpu_power", since_wall_s=0, tags={"user": user})]

    assert seconds("ann") == []
    assert seconds("ann\x00") == [2]
    assert seconds("") == [0, 1]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    tags=st.dictionaries(st.sampled_from(["user", "job_name", "node"]), HOSTILE),
    text=HOSTILE,
    number=VALUES.filter(lambda value: not isinstance(value, bool)),
    flag=st.booleans(),
    at_us=st.integers(0, 4_000_000_000_000_000),
)
def test_whatever_a_user_writes_reads_back(
    store: TelemetryStore, tags: dict[str, str], text: str, number: float, flag: bool, at_us: int
) -> None:
    wall_s = at_us / 1e6
    store.write([Point("hostile", wall_s, {"text": text, "number": number, "flag": flag}, tags)])
    assert store.flush(FLUSH_S)
    kept_tags = {name: value.encode("utf-8", "replace").decode() for name, value in tags.items() if value}
    found = [
        point
        for point in store.read("hostile", since_wall_s=wall_s, until_wall_s=wall_s + 2e-6, tags=tags)
        if point.tags == kept_tags and point.wall_s == wall_s
    ]
    assert [point.fields for point in found] == [
        {"text": text.encode("utf-8", "replace").decode(), "number": number, "flag": flag}
    ]
    assert store.dropped() == 0
