"""Joules of the whole job: every rank reads the counters of the GPUs it answers for, rank 0 adds them up by UUID.

They travel over the roll call's connections, beside the training, so no collective waits for a counter.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from job_wrappers.agent_client import AgentClient, job_id_of
from job_wrappers.energy_counters import read_energy_joules
from job_wrappers.training.place import RankPlace
from slurm_power.errors import SlurmPowerError

log = logging.getLogger(__name__)

PERIOD_S = 1.0

ReadJoules = Callable[[tuple[str, ...]], Mapping[str, float]]


def gpus_of_rank(place: RankPlace, client: AgentClient, *, own_gpu: str | None) -> tuple[str, ...]:
    """UUIDs whose counters this rank reads: its own GPU, and on the first rank of a node all that the agent knows of.

    Counted twice does not matter: rank 0 adds up by UUID. () where nobody knows of any: then energy is unknown.
    """
    found = () if own_gpu is None else (own_gpu,)
    if place.local_rank != 0:
        return found
    try:
        return tuple(dict.fromkeys((*client.my_gpus(job_id_of()), *found)))
    except SlurmPowerError as error:
        log.info("the job's GPUs are not known from the agent: %s", error)
        return found


class EnergyMeter:
    """Reads now, every `period_s`, and once more at the end. A counter that cannot be read makes the sum unknown."""

    def __init__(
        self,
        gpus: tuple[str, ...],
        send: Callable[[object], None],
        *,
        read: ReadJoules = read_energy_joules,
        period_s: float = PERIOD_S,
    ) -> None:
        self._gpus, self._send, self._read, self._period_s = gpus, send, read, period_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="energy", daemon=True)

    def start(self) -> None:
        if self._gpus:
            self._tell()
            self._thread.start()

    def stop(self) -> None:
        """After this, the last reading is on its way."""
        self._stopped.set()
        if self._gpus:
            self._thread.join(5.0)
            self._tell()

    def _run(self) -> None:
        while not self._stopped.wait(self._period_s):
            self._tell()

    def _tell(self) -> None:
        try:
            self._send(dict(self._read(self._gpus)))
        except SlurmPowerError as error:
            self._send({"unknown": str(error)[:200]})


class EnergyBook:
    """On rank 0: the first and the latest counter of every GPU. `hear` comes from any thread."""

    def __init__(self, *, now_unix_s: Callable[[], float] = time.time) -> None:
        self._lock = threading.Lock()
        self._now_unix_s = now_unix_s
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._told: dict[tuple[int, str], float] = {}
        self._trace: list[tuple[float, float]] = []
        self._noted_unix_s = 0.0
        self.unknown: str | None = "no rank knows of a GPU"
        """Why there is no sum; None: there is one."""

    def hear(self, rank: int, message: Any) -> None:
        if not isinstance(message, dict):
            return
        with self._lock:
            if isinstance(message.get("unknown"), str):
                self._doubt(f"rank {rank}: {message['unknown']}")
                return
            for uuid, joules in message.items():
                if isinstance(uuid, str) and isinstance(joules, int | float) and not isinstance(joules, bool):
                    self._count(rank, uuid, float(joules))
            if self._now_unix_s() - self._noted_unix_s >= PERIOD_S:  # however many ranks there are
                self._note()

    def note_end(self) -> None:
        """The last row of the trace: after the last readings."""
        with self._lock:
            self._note()

    @property
    def gpus(self) -> int:
        return len(self._first)

    def used_joules(self) -> float | None:
        """Since the first readings. None: unknown."""
        with self._lock:
            return None if self.unknown else sum(self._last.values()) - sum(self._first.values())

    def _note(self) -> None:
        self._noted_unix_s = self._now_unix_s()
        self._trace.append((self._noted_unix_s, sum(self._last.values()) - sum(self._first.values())))

    def take_trace(self) -> list[tuple[float, float]]:
        """(Unix time, joules used until then) since the last call."""
        with self._lock:
            trace, self._trace = self._trace, []
            return [] if self.unknown else trace

    def _count(self, rank: int, uuid: str, joules: float) -> None:
        """Two ranks may read one counter; what they tell may overtake each other, what one rank tells does not."""
        if self.unknown == "no rank knows of a GPU":
            self.unknown = None
        self._first.setdefault(uuid, joules)
        if joules < self._told.get((rank, uuid), joules):
            self._doubt("an energy counter was reset while the job ran")
        self._told[rank, uuid] = joules
        self._last[uuid] = max(joules, self._last.get(uuid, joules))

    def _doubt(self, why: str) -> None:
        if self.unknown is None or self.unknown == "no rank knows of a GPU":
            log.warning("the job's energy is unknown: %s", why)
            self.unknown = why


class Window:
    """Means over the last seconds: a counter that is read once a second says little about one short step."""

    def __init__(self, length_s: float = 10.0) -> None:
        self._length_s = length_s
        self._kept: list[tuple[float, float, int]] = []

    def add(self, at_s: float, joules: float | None, tokens: int) -> tuple[float | None, float | None]:
        """Joules per token and watts; None until the window holds two different counter readings."""
        if joules is None:
            self._kept.clear()
            return None, None
        total = (self._kept[-1][2] if self._kept else 0) + tokens
        self._kept.append((at_s, joules, total))
        while len(self._kept) > 2 and at_s - self._kept[1][0] >= self._length_s:
            self._kept.pop(0)
        first_s, first_joules, first_tokens = self._kept[0]
        used, seconds, done = joules - first_joules, at_s - first_s, total - first_tokens
        if used <= 0 or seconds <= 0 or done <= 0:
            return None, None
        return used / done, used / seconds
