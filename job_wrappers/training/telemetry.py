"""Streams a run's steps, stages and events to the node's agent. Never blocks the training and never fails it."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from job_wrappers.agent_client import AgentClient
from job_wrappers.training.energy import Window
from slurm_power.errors import SlurmPowerError
from training.run.listener import NullListener, RunEvent, RunResult, StepRecord

log = logging.getLogger(__name__)

QUEUE_POINTS = 4096
BATCH_POINTS = 200
STOP_S = 3.0

_END = None


class TelemetryListener(NullListener):
    def __init__(self, client: AgentClient, job_id: int, *, used_joules: Callable[[], float | None]) -> None:
        self._client, self._job_id, self._used_joules = client, job_id, used_joules
        self._window = Window()
        self._warned = False
        self._queue: queue.Queue[Mapping[str, Any] | None] = queue.Queue(QUEUE_POINTS)
        self._thread = threading.Thread(target=self._send_on, name="telemetry", daemon=True)
        self._thread.start()

    def on_step(self, record: StepRecord) -> None:
        joules_per_token, watts = self._window.add(record.ended_at_unix_s, self._used_joules(), record.tokens)
        values: dict[str, float | int | None] = {
            "step": record.step,
            "loss": record.loss,
            "learning_rate": record.learning_rate,
            "gradient_norm": record.gradient_norm,
            "tokens": record.tokens,
            "tokens_per_s": record.tokens_per_s,
            "step_s": record.step_s,
            "pause_s": record.pause_s,
            "micro_sequences": record.micro_sequences,
            "joules_per_token": joules_per_token,
            "draw_watts": watts,
        }
        known = {name: value for name, value in values.items() if value is not None}
        self._put({"measurement": "training_step", "wall_s": record.ended_at_unix_s, "fields": known, "tags": {}})
        for stage, busy_fraction in enumerate(record.busy_fraction_by_stage):
            fields = {"step": record.step, "busy_fraction": busy_fraction}
            point = {"measurement": "training_stage", "wall_s": record.ended_at_unix_s, "fields": fields}
            self._put({**point, "tags": {"stage": str(stage)}})

    def on_event(self, event: RunEvent) -> None:
        fields = {"step": event.step, "kind": event.kind, "text": event.text[:1000]}
        self._put({"measurement": "training_event", "wall_s": event.at_unix_s, "fields": fields, "tags": {}})

    def on_run_end(self, result: RunResult) -> None:
        self.close()

    def close(self) -> None:
        """Wait a moment for what is still queued; the job does not stay for its telemetry."""
        try:
            self._queue.put(_END, timeout=STOP_S)
        except queue.Full:
            return
        self._thread.join(STOP_S)

    def _put(self, point: Mapping[str, Any]) -> None:
        try:
            self._queue.put_nowait(point)
        except queue.Full:
            self._warn("the agent is slow, so some points are left out")

    def _send_on(self) -> None:
        while True:
            batch = [self._queue.get()]
            while len(batch) < BATCH_POINTS and batch[-1] is not _END and not self._queue.empty():
                batch.append(self._queue.get())
            points = [point for point in batch if point is not None]
            try:
                if points:
                    self._client.send_points(self._job_id, points)
            except SlurmPowerError as error:
                self._warn(f"the training runs without full telemetry: {error}")
            if batch[-1] is _END:
                return

    def _warn(self, text: str) -> None:
        if not self._warned:
            log.warning("%s", text)
        self._warned = True
