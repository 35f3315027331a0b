"""Joules of all the job's GPUs: rank 0 reads its own node's counters on the spot; others are told now and then."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from job_wrappers.energy_counters import read_energy_joules
from job_wrappers.training.energy import EnergyMeter, ReadJoules
from job_wrappers.training.place import RankPlace
from job_wrappers.training.team import Team as RollCallTeam
from slurm_power.errors import SlurmPowerError

NODE_PERIOD_S, RANK_PERIOD_S = 0.2, 1.0
"""The first rank of a node may know all of the job's GPUs there; the others know their own."""

FIRST_WORD_S = 3.0


class JobCounters:
    """Rank 0's. `total_joules` comes from the engine's thread, `hear` from the roll call's."""

    def __init__(self, *, other_ranks: int, read: ReadJoules = read_energy_joules) -> None:
        self._other_ranks, self._read = other_ranks, read
        self._here: frozenset[str] = frozenset()
        self._told: dict[int, Mapping[str, float] | None] = {}
        self._changed = threading.Condition()

    def use(self, own_gpus: tuple[str, ...]) -> None:
        """Waits a moment for the others' first word: a sum that begins with a gap is never known."""
        with self._changed:
            self._here |= frozenset(own_gpus)
            self._changed.wait_for(lambda: len(self._told) >= self._other_ranks, timeout=FIRST_WORD_S)

    def hear(self, rank: int, message: object) -> None:
        with self._changed:
            if isinstance(message, dict) and isinstance(message.get("here"), list):
                self._here |= {str(uuid) for uuid in message["here"]}
                self._told[rank] = {}
            elif isinstance(message, dict) and all(isinstance(joules, float) for joules in message.values()):
                self._told[rank] = message or None
            else:
                self._told[rank] = None
            self._changed.notify_all()

    def total_joules(self) -> float | None:
        """None: a counter is missing, so there is no sum."""
        with self._changed:
            told, here = list(self._told.values()), tuple(sorted(self._here))
        if not here or len(told) < self._other_ranks:
            return None
        found: dict[str, float] = {}
        for message in told:
            if message is None:
                return None
            for uuid, joules in message.items():  # two ranks may read one counter; the higher reading is the newer
                found[uuid] = max(joules, found.get(uuid, joules))
        try:
            return sum({**found, **self._read(here)}.values())
        except SlurmPowerError:
            return None


def tell_joules(place: RankPlace, gpus: tuple[str, ...], roll: RollCallTeam) -> None:
    """By every rank but 0, once: from then on rank 0 knows."""
    if not gpus:
        roll.send_joules({"unknown": f"rank {place.rank} knows no GPU"})
    elif place.node_name == place.nodes[0]:
        roll.send_joules({"here": list(gpus)})
    else:
        period_s = NODE_PERIOD_S if place.local_rank == 0 else RANK_PERIOD_S
        EnergyMeter(gpus, roll.send_joules, period_s=period_s).start()
