"""One line from a local client, strictly read into a request. Whoever sent it is hostile until proven root. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slurm_power.errors import ConfigError
from slurm_power.gpu.wire import OPTIONS
from slurm_power.gpu.wire_json import integer, load_object, maybe_integer, maybe_number, number, text

POINT_PREFIXES = ("job_", "serving_", "training_")
"""Measurements that a job may write; all others are the product's own."""

MAX_POINTS = 1000
MAX_FIELDS = 32
MAX_TAGS = 4
_MEASUREMENT = re.compile(r"[a-z_]{1,64}", re.ASCII)
_KEY = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_MAX_TAG = 64
_STAMPED = ("job_id", "uid", "node")

Scalar = float | int | str | bool


@dataclass(frozen=True, slots=True)
class JobBegin:
    job_id: int
    uid: int
    node: str
    gpus: str
    visible: str
    options: Mapping[str, str]
    task: bool  # from the start of a task, not of the job


@dataclass(frozen=True, slots=True)
class JobEnd:
    job_id: int
    node: str


@dataclass(frozen=True, slots=True)
class Status:
    pass


@dataclass(frozen=True, slots=True)
class MyGpus:
    job_id: int


@dataclass(frozen=True, slots=True)
class SetCap:
    job_id: int
    uuid: str
    watts: float | None


@dataclass(frozen=True, slots=True)
class SetClock:
    job_id: int
    uuid: str
    mhz: int | None


@dataclass(frozen=True, slots=True)
class RawPoint:
    measurement: str
    wall_s: float
    fields: Mapping[str, Scalar]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Points:
    job_id: int
    points: tuple[RawPoint, ...]


Request = JobBegin | JobEnd | Status | MyGpus | SetCap | SetClock | Points


def parse_request(line: bytes) -> Request:
    """Raise ConfigError, in one line and without the client's own text at length, for anything else."""
    table = load_object(line)
    op = table.get("op")
    if op in ("job_begin", "task_begin"):
        return _job_begin(table, task=op == "task_begin")
    if op == "job_end":
        return JobEnd(integer(table, "job_id"), text(table, "node"))
    if op == "status":
        return Status()
    if op == "my_gpus":
        return MyGpus(integer(table, "job_id"))
    if op == "set_cap":
        return SetCap(integer(table, "job_id"), text(table, "uuid"), maybe_number(table, "watts"))
    if op == "set_clock":
        return SetClock(integer(table, "job_id"), text(table, "uuid"), maybe_integer(table, "mhz"))
    if op == "points":
        return Points(integer(table, "job_id"), _points(table.get("points")))
    raise ConfigError("op: unknown")


def _job_begin(table: Mapping[str, Any], *, task: bool) -> JobBegin:
    options = table.get("options", {})
    if not isinstance(options, dict) or any(key not in OPTIONS for key in options):
        raise ConfigError("options: must be an object with the known options only")
    return JobBegin(
        job_id=integer(table, "job_id"),
        uid=integer(table, "uid"),
        node=text(table, "node"),
        gpus=text(table, "gpus") if table.get("gpus") is not None else "",
        visible=text(table, "visible") if table.get("visible") is not None else "",
        options={key: text(options, key) for key in options},
        task=task,
    )


def _points(value: object) -> tuple[RawPoint, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_POINTS:
        raise ConfigError(f"points: must be a list of 1 to {MAX_POINTS}")
    return tuple(_point(item) for item in value)


def _point(item: object) -> RawPoint:
    if not isinstance(item, dict):
        raise ConfigError("points: must be objects")
    measurement = text(item, "measurement")
    if not _MEASUREMENT.fullmatch(measurement) or not measurement.startswith(POINT_PREFIXES):
        raise ConfigError(f"measurement: must be [a-z_]+ and start with one of {', '.join(POINT_PREFIXES)}")
    fields, tags = item.get("fields"), item.get("tags", {})
    if not isinstance(fields, dict) or not 0 < len(fields) <= MAX_FIELDS:
        raise ConfigError(f"fields: must be an object with 1 to {MAX_FIELDS} entries")
    if not isinstance(tags, dict) or len(tags) > MAX_TAGS:
        raise ConfigError(f"tags: must be an object with at most {MAX_TAGS} entries")
    for key in (*fields, *tags):
        if not _KEY.fullmatch(key) or key in _STAMPED:
            raise ConfigError(f"{key[:40]!a}: not a name a job may use")
    return RawPoint(
        measurement=measurement,
        wall_s=number(item, "wall_s"),
        fields={key: _scalar(fields, key) for key in fields},
        tags={key: _tag(tags, key) for key in tags},
    )


def _scalar(fields: Mapping[str, Any], key: str) -> Scalar:
    value = fields[key]
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return text(fields, key)
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    return number(fields, key)


def _tag(tags: Mapping[str, Any], key: str) -> str:
    value = text(tags, key)
    if len(value) > _MAX_TAG or not value.isprintable():
        raise ConfigError(f"tags: a value must be printable and at most {_MAX_TAG} characters")
    return value
