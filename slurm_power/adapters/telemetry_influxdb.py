"""InfluxDB as the store: written with influxdb-client (/api/v2/write: 1.8, 2.x, 3.x), read with InfluxQL (/query).

Every point goes through the spool on disk, so neither an outage nor a `kill -9` loses what was flushed; the points
of the last `flush_period_s` are in memory only. A point that arrives twice is one point there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import urllib3
from influxdb_client import InfluxDBClient, WritePrecision
from influxdb_client.client.exceptions import InfluxDBError
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException

from slurm_power.adapters.telemetry_delivery import BATCH_LINES, Delivery, Refused
from slurm_power.adapters.telemetry_line import (
    delete_statement,
    identifier,
    line_of,
    oldest_statement,
    points_of_answer,
    policies_of_answer,
    select_statement,
)
from slurm_power.adapters.telemetry_queue import Episode, WriteBehind
from slurm_power.adapters.telemetry_spool import Spool
from slurm_power.errors import Unavailable
from slurm_power.monitoring.downsample import THINNED_MEASUREMENTS
from slurm_power.ports.telemetry_rules import time_us
from slurm_power.ports.telemetry_store import Point

_REFUSED_STATUS = frozenset({400, 413, 422})
"""The points are bad. Any other answer (no such database, no right, overload) can be mended without losing them."""

_BUCKETS_S = (10.0, 60.0)
_CLOSE_TIMEOUT_S = 5.0
_POLL_S = 0.05


class InfluxStore:
    def __init__(
        self,
        *,
        url: str,
        org: str,
        database: str,
        token: str,
        spool: Path,
        spool_max_points: int = 1_000_000,
        memory_max_points: int = 100_000,
        flush_period_s: float = 1.0,
        timeout_s: float = 10.0,
        backoff_max_s: float = 60.0,
    ) -> None:
        self._url = url.rstrip("/")
        self._database = database
        self._client = InfluxDBClient(self._url, token, org=org, timeout=round(timeout_s * 1000))
        self._write_api = self._client.write_api(write_options=SYNCHRONOUS)
        headers = {"Authorization": f"Token {token}"} if token else {}
        self._http = httpx.Client(base_url=self._url, headers=headers, timeout=timeout_s, trust_env=False)
        name = f"telemetry store {self._url}"
        self._spool = Spool(spool, max_lines=spool_max_points)
        self._delivery = Delivery(self._spool, self._send, name=name, backoff_max_s=backoff_max_s)
        self._queue = WriteBehind(
            self._keep, name=f"spool {spool.name}", flush_period_s=flush_period_s, max_points=memory_max_points
        )
        self._overflowed = 0
        self._full = Episode(f"spool {spool.name}")
        if spool.exists():
            self._delivery.start()  # what an earlier process could not deliver

    def write(self, points: Sequence[Point]) -> None:
        self._delivery.start()
        self._queue.add(points)

    def read(
        self,
        measurement: str,
        *,
        since_wall_s: float,
        until_wall_s: float | None = None,
        tags: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> list[Point]:
        if limit == 0:
            return []  # to InfluxQL, LIMIT 0 is no limit
        names = [measurement]
        if measurement in THINNED_MEASUREMENTS:
            names += [thinned_name(measurement, bucket_s) for bucket_s in _BUCKETS_S]
        statement = select_statement(
            names,
            since_us=time_us(since_wall_s),
            until_us=None if until_wall_s is None else time_us(until_wall_s),
            tags=tags or {},
            limit=limit,
        )
        found = points_of_answer(measurement, self._query(statement))
        found.sort(key=lambda point: point.wall_s)
        return found if limit is None else found[-limit:]

    def read_alone(self, measurement: str, *, since_wall_s: float, until_wall_s: float) -> list[Point]:
        """Without what it was thinned to."""
        since_us, until_us = time_us(since_wall_s), time_us(until_wall_s)
        statement = select_statement([measurement], since_us=since_us, until_us=until_us, tags={}, limit=None)
        return points_of_answer(measurement, self._query(statement))

    def oldest_wall_s(self, measurement: str) -> float | None:
        """None: no point of it. Raise Unavailable."""
        found = points_of_answer(measurement, self._query(oldest_statement(measurement)))
        return min((point.wall_s for point in found), default=None)

    def write_now(self, points: Sequence[Point]) -> None:
        """Past the spool; they are there when this returns. Raise Unavailable."""
        lines = [line_of(point) for point in points]
        for begin in range(0, len(lines), BATCH_LINES):
            self._delivery.send_around_refused(lines[begin : begin + BATCH_LINES])

    def delete(self, measurement: str, *, since_wall_s: float, until_wall_s: float) -> None:
        """Raise Unavailable."""
        self._query(delete_statement(measurement, since_us=time_us(since_wall_s), until_us=time_us(until_wall_s)))

    def retention_words(self) -> list[str]:
        """The server's own retention policies of the database, as it tells them. Raise Unavailable."""
        answer = "".join(self._query(f"SHOW RETENTION POLICIES ON {identifier(self._database)}"))
        return policies_of_answer(answer)

    def pending(self) -> int:
        return self._queue.pending() + self._spooled()

    def dropped(self) -> int:
        """Lost to a full spool or without a usable value, and those the server refused (they are set aside)."""
        return self._queue.dropped() + self._overflowed + self._delivery.refused()

    def flush(self, timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        if not self._queue.flush(timeout_s):
            return False
        self._delivery.hurry()
        while self._spooled():
            if time.monotonic() >= deadline_s:
                return False
            time.sleep(_POLL_S)
        return True

    def close(self) -> None:
        self._queue.close(_CLOSE_TIMEOUT_S)
        self._delivery.close(_CLOSE_TIMEOUT_S)
        self._spool.close()
        self._write_api.close()
        self._client.close()
        self._http.close()

    def _spooled(self) -> int:
        try:
            return self._spool.count() if self._spool.exists() else 0
        except Unavailable:
            return 0  # the file is gone or locked; what is in it counts again when it can be read

    def _keep(self, points: Sequence[Point]) -> None:
        """On disk; straight to the server when the disk fails."""
        lines = [line_of(point) for point in points]
        try:
            dropped = self._spool.append(lines)
            if dropped:
                self._overflowed += dropped
                self._full.wrong(f"{self._overflowed} points", "the oldest are dropped, for the spool is full")
            else:
                self._full.over()
            self._delivery.hurry()
        except Unavailable as no_disk:
            try:
                self._send(lines)
            except (Unavailable, Refused):
                raise no_disk from None

    def _send(self, lines: Sequence[str]) -> None:
        try:
            self._write_api.write(bucket=self._database, record="\n".join(lines), write_precision=WritePrecision.NS)
        except ApiException as cause:
            reason = f"{cause.status} {_message(cause)}"
            if cause.status in _REFUSED_STATUS:
                raise Refused(reason) from cause
            raise Unavailable(f"{self._url}: {reason}") from cause
        except (InfluxDBError, urllib3.exceptions.HTTPError, OSError) as cause:
            raise Unavailable(f"{self._url}: {cause}") from cause

    def _query(self, statement: str) -> list[str]:
        """The JSON documents of the answer. Times come in nanoseconds unless another `epoch` is asked for."""
        params = {"db": self._database, "q": statement, "epoch": "ns", "chunked": "true"}
        try:
            answer = self._http.post("/query", data=params)
        except httpx.HTTPError as cause:
            raise Unavailable(f"{self._url}: {cause or type(cause).__name__}") from cause
        if answer.status_code != httpx.codes.OK:
            raise Unavailable(f"{self._url}: {answer.status_code} {answer.text[:200].strip()}")
        return answer.text.split("\n")


def thinned_name(measurement: str, bucket_s: float) -> str:
    """Where the points go that stand for so many seconds each."""
    return f"{measurement}_{bucket_s:.0f}s"


def _message(error: ApiException) -> str:
    return str(error.message or error.body or error.reason).strip()[:300]
