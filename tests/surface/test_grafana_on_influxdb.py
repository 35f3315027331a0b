"""Every query of the Grafana dashboards is one that a real InfluxDB understands, and answers with points like ours."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import httpx
import pytest

from slurm_power.adapters.telemetry_line import line_of
from slurm_power.ports.telemetry_store import FieldValue, Point
from slurm_power.testing.influxdb_server import InfluxDbServer, find_program
from tests.surface.test_monitoring_files import DASHBOARDS, queries
from tests.surface.test_telemetry_surface import documented_tags, sections

pytestmark = [pytest.mark.influxdb]

VARIABLES = {"$timeFilter": "time > now() - 1h", "$__interval": "1m", "$node": ".*", "$model": ".*"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if find_program("influxd") is None or find_program("nginx") is None:
        pytest.skip("no influxd or nginx here: make setup installs them")
    with InfluxDbServer(tmp_path_factory.mktemp("influxdb")) as server:
        server.create_database("slurm_power")
        lines = [line_of(point) for name in sections() for point in made_up_points(name)]
        written = httpx.post(f"{server.url}/write?db=slurm_power", content="\n".join(lines), trust_env=False)
        assert written.status_code == 204, written.text
        yield server.url


def made_up_points(measurement: str) -> list[Point]:
    """Two of them, with every field and tag that the page of the telemetry documents."""
    units = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", sections()[measurement], re.MULTILINE))
    tags = {tag: f"a-{tag}" for tag in documented_tags(measurement)}

    def value(unit: str, number: float) -> FieldValue:
        return "some text" if unit == "text" else number

    return [
        Point(
            measurement, time.time() - ago_s, {name: value(unit, 1000.0 - ago_s) for name, unit in units.items()}, tags
        )
        for ago_s in (120.0, 30.0)
    ]


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_influxdb_answers_every_query(url: str, file: object) -> None:
    for query in queries(json.loads(file.read_text())):  # type: ignore[attr-defined]
        for name, stands_for in VARIABLES.items():
            query = query.replace(name, stands_for)
        answer = httpx.get(f"{url}/query", params={"db": "slurm_power", "q": query}, trust_env=False).json()
        (result,) = answer["results"]
        assert "error" not in result, query
        assert result.get("series"), query
