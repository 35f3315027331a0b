"""What a server does, every few seconds, to the node agent, which passes it on to the site's telemetry store."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from job_wrappers.agent_client import AgentClient
from job_wrappers.serving.engine.views import ClassView, EngineStatus
from slurm_power.errors import SlurmPowerError

log = logging.getLogger(__name__)

EVERY_S = 5.0
STOP_S = 3.0

Point = dict[str, Any]


class ServingTelemetry:
    """Asks for the status on a thread of its own: the engine never waits for an agent, and an agent that does not
    answer costs one warning."""

    def __init__(
        self, client: AgentClient, job_id: int, status: Callable[[], EngineStatus], *, every_s: float = EVERY_S
    ) -> None:
        self._client, self._job_id, self._status, self._every_s = client, job_id, status, every_s
        self._told: EngineStatus | None = None
        self._warned = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def start(self, ready: str) -> None:
        """`ready`: the line that says where the server is."""
        self._ready = ready
        self._thread.start()

    def close(self) -> None:
        """Sends the last numbers; the job does not stay for its telemetry."""
        self._stopped.set()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        self._send([_event("ready", self._ready)])
        while not self._stopped.wait(self._every_s):
            self._tell()
        self._tell()
        self._send([_event("ended", f"{self._status().generated_tokens_total} tokens generated")])

    def _tell(self) -> None:
        status = self._status()
        self._send([*status_points(status, wall_s=time.time()), *_changes(self._told, status)])
        self._told = status

    def _send(self, points: list[Point]) -> None:
        try:
            self._client.send_points(self._job_id, points)
        except SlurmPowerError as error:
            if not self._warned:
                log.warning("the server runs without full telemetry: %s", error)
            self._warned = True


def status_points(status: EngineStatus, *, wall_s: float) -> list[Point]:
    return [
        _point("serving_status", wall_s, {"model": status.active[:64]}, _status_fields(status)),
        *(
            _point("serving_class", wall_s, {"class": name}, _class_fields(view))
            for name, view in status.classes.items()
        ),
    ]


def _status_fields(status: EngineStatus) -> dict[str, float | None]:
    views = status.models
    return {
        "running": sum(view.running for view in views),
        "waiting": sum(view.waiting for view in views),
        "blocks_total": sum(view.blocks_total for view in views),
        "blocks_held": sum(view.blocks_held for view in views),
        "max_num_seqs": status.limits.max_num_seqs,
        "max_batched_tokens": status.limits.max_batched_tokens,
        "sm_clock_mhz": status.sm_clock_mhz,
        "tokens_per_s": status.tokens_per_s,
        "joules_per_token": status.joules_per_token,
        "draw_watts": status.watts,
        "energy_joules": status.energy_joules_total,
        "prompt_tokens": status.prompt_tokens_total,
        "generated_tokens": status.generated_tokens_total,
        "preemptions": status.preemptions_total,
    }


def _class_fields(view: ClassView) -> dict[str, float | None]:
    return {
        "running": view.running,
        "waiting": view.waiting,
        "least_slack_s": view.least_slack_s,
        "first_token_p50_s": view.first_token.p50_s,
        "first_token_p99_s": view.first_token.p99_s,
        "between_tokens_p50_s": view.between_tokens.p50_s,
        "between_tokens_p99_s": view.between_tokens.p99_s,
    }


def _changes(before: EngineStatus | None, now: EngineStatus) -> list[Point]:
    """What was steered, and failed, since the last time."""
    found: list[Point] = []
    steered = now.last_steered
    if steered is not None and (before is None or before.last_steered != steered):
        took = "" if steered.effect_s is None else f", in force after {steered.effect_s:.3f} s"
        found.append(_event("steered", steered.what + took))
    if now.failure is not None and (before is None or before.failure is None):
        found.append(_event("failed", now.failure))
    return found


def _event(kind: str, text: str) -> Point:
    return _point("serving_event", time.time(), {}, {"kind": kind, "text": text[:1000]})


def _point(measurement: str, wall_s: float, tags: Mapping[str, str], fields: Mapping[str, float | str | None]) -> Point:
    known = {name: value for name, value in fields.items() if value is not None}
    return {"measurement": measurement, "wall_s": wall_s, "tags": dict(tags), "fields": known}
