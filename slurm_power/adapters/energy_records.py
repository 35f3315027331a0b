"""What agents and controller have written down about energy and jobs, out of a telemetry store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slurm_power.monitoring.energy import Moment, Used
from slurm_power.monitoring.energy_marks import Count, Holder, Mark
from slurm_power.monitoring.energy_nodes import NodeMark, NodeSample
from slurm_power.ports.telemetry_store import FieldValue, Point, TelemetryStore


@dataclass(frozen=True, slots=True)
class KnownJob:
    """What Slurm says of a job. Text comes from users."""

    user_name: str = ""
    account: str = ""
    name: str = ""
    partition: str = ""
    state: str = ""
    ends_wall_s: tuple[float, ...] = ()  # of every attempt that has ended


@dataclass(frozen=True, slots=True)
class CommandRun:
    """One command under slurm-power-run, on one node: a step, or part of one."""

    job_id: int
    node: str
    step_id: int | None
    ended_wall_s: float
    duration_s: float | None
    energy_joules: float | None


class EnergyRecords:
    """Each method raises Unavailable when the store cannot be read."""

    def __init__(self, store: TelemetryStore) -> None:
        self._store = store

    def marks(self, since_wall_s: float, until_wall_s: float) -> list[Mark]:
        points = self._store.read("gpu_allocation", since_wall_s=since_wall_s, until_wall_s=until_wall_s)
        return [mark for mark in map(_mark, points) if mark is not None]

    def node_marks(self, since_wall_s: float, until_wall_s: float) -> list[NodeMark]:
        points = self._store.read("node_energy", since_wall_s=since_wall_s, until_wall_s=until_wall_s)
        return [mark for mark in map(_node_mark, points) if mark is not None]

    def samples(self, uuid: str, since_wall_s: float, until_wall_s: float) -> Sequence[Moment]:
        points = self._store.read("gpu", since_wall_s=since_wall_s, until_wall_s=until_wall_s, tags={"uuid": uuid})
        return [
            Moment(point.wall_s, _number(point.fields, "energy_joules"), _number(point.fields, "draw_watts"))
            for point in points
        ]

    def node_samples(self, node: str, since_wall_s: float, until_wall_s: float) -> list[NodeSample]:
        points = self._store.read("node", since_wall_s=since_wall_s, until_wall_s=until_wall_s, tags={"node": node})
        return [
            NodeSample(point.wall_s, _number(point.fields, "base_watts"), _number(point.fields, "cpu_watts"))
            for point in points
        ]

    def node_draws(self, since_wall_s: float, until_wall_s: float) -> Mapping[str, list[tuple[float, float]]]:
        """By node: (when, watts) of the whole node."""
        draws: dict[str, list[tuple[float, float]]] = {}
        for point in self._store.read("node", since_wall_s=since_wall_s, until_wall_s=until_wall_s):
            watts = _number(point.fields, "draw_watts")
            if watts is not None:
                draws.setdefault(point.tags.get("node", ""), []).append((point.wall_s, watts))
        return draws

    def facts(self, since_wall_s: float, until_wall_s: float) -> dict[int, KnownJob]:
        """As the controller saw the jobs in Slurm; the newest word counts, ends are kept of every attempt."""
        found: dict[int, KnownJob] = {}
        for point in self._store.read("job", since_wall_s=since_wall_s, until_wall_s=until_wall_s):
            job_id, end_s = _number(point.fields, "job_id"), _number(point.fields, "end_wall_s")
            if job_id is None:
                continue
            texts = {name: str(point.fields.get(field, "")) for name, field in _TEXTS.items()}
            known = found.get(int(job_id), KnownJob())
            ends = known.ends_wall_s if end_s is None or end_s in known.ends_wall_s else (*known.ends_wall_s, end_s)
            found[int(job_id)] = KnownJob(**texts, ends_wall_s=ends)
        return found

    def runs(self, since_wall_s: float, until_wall_s: float) -> list[CommandRun]:
        points = self._store.read("job_run", since_wall_s=since_wall_s, until_wall_s=until_wall_s)
        return [run for run in map(_run, points) if run is not None]


_TEXTS = {
    "user_name": "user_name",
    "account": "account",
    "name": "job_name",
    "partition": "partition",
    "state": "state",
}


def _mark(point: Point) -> Mark | None:
    fields = point.fields
    event, job_id, uid = fields.get("event"), _number(fields, "job_id"), _number(fields, "uid")
    if "node" not in point.tags or "uuid" not in point.tags:
        return None
    held = event in ("begin", "held") and job_id is not None and uid is not None
    holder = Holder(int(job_id), int(uid)) if held and job_id is not None and uid is not None else None
    return Mark(point.tags["node"], point.tags["uuid"], point.wall_s, holder, _count(fields), event == "begin")


def _count(fields: Mapping[str, FieldValue]) -> Count | None:
    life_s, up_s = _number(fields, "life_wall_s"), _number(fields, "up_s")
    counted, integrated = _number(fields, "counted_joules"), _number(fields, "integrated_joules")
    unknown_s = _number(fields, "unknown_s")
    if life_s is None or up_s is None or counted is None or integrated is None or unknown_s is None:
        return None
    return Count(life_s, up_s, Used(counted, integrated, unknown_s), _number(fields, "energy_joules"))


def _node_mark(point: Point) -> NodeMark | None:
    fields = point.fields
    life_s, up_s, gpus = (_number(fields, name) for name in ("life_wall_s", "up_s", "gpus"))
    if life_s is None or up_s is None or gpus is None or "node" not in point.tags:
        return None
    cpu_joules, rest_joules = _number(fields, "cpu_joules"), _number(fields, "rest_joules")
    return NodeMark(point.tags["node"], point.wall_s, life_s, up_s, int(gpus), cpu_joules, rest_joules)


def _run(point: Point) -> CommandRun | None:
    fields = point.fields
    job_id, step_id = _number(fields, "job_id"), _number(fields, "step_id")
    if fields.get("event") != "end" or job_id is None:
        return None
    return CommandRun(
        int(job_id),
        point.tags.get("node", ""),
        None if step_id is None else int(step_id),
        point.wall_s,
        _number(fields, "duration_s"),
        _number(fields, "energy_joules"),
    )


def _number(fields: Mapping[str, FieldValue], name: str) -> float | None:
    value = fields.get(name)
    return None if value is None or isinstance(value, str) else float(value)
