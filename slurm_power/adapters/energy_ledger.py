"""The energy of a period, from the records in the store: whose it was, what it cost, what it emitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from slurm_power.adapters.energy_records import EnergyRecords, KnownJob
from slurm_power.ess.rates import Rates, mean_prices
from slurm_power.monitoring.carbon import CarbonIntensity
from slurm_power.monitoring.energy_account import EnergyAccount, Worth, account_of
from slurm_power.monitoring.energy_marks import Stretch, stretches_of
from slurm_power.monitoring.energy_nodes import (
    Beside,
    NodeStretch,
    node_stretches_of,
    node_tail,
    shares_of,
    within,
)
from slurm_power.units import JOULES_PER_KWH

LOOK_S = 1800.0
"""Marks are looked for so long before and after a period: agents write them more often than that."""

CHUNK_S = 6 * 3600.0
"""So much of a period is in memory at once."""

FOLLOWED_GPUS = 256
"""On a larger site what was used since the last marks, ten minutes at most, is not looked up sample by sample."""

_WIDEST_GAP_S = 150.0  # between points of a node's draw, thinned to one a minute


@dataclass(frozen=True, slots=True)
class NodeCheck:
    """What the accounts sum to, beside the nodes' own draw over the same time."""

    known_s: float  # node seconds in which the draw is known
    drawn_joules: float


class EnergyLedger:
    def __init__(
        self,
        records: EnergyRecords,
        *,
        apart: bool = False,
        rates: Rates | None = None,
        pue: float = 1.0,
        intensity: CarbonIntensity | None = None,
    ) -> None:
        """`apart`: jobs do not carry what their nodes draw beside the GPUs."""
        self._records = records
        self._apart = apart
        self._rates = rates
        self._pue = pue
        self._intensity = intensity

    def account(
        self, since_wall_s: float, until_wall_s: float, *, facts: Mapping[int, KnownJob], now_wall_s: float
    ) -> EnergyAccount:
        """Raise Unavailable when the store cannot be read."""
        seen = (since_wall_s - LOOK_S, until_wall_s + LOOK_S)
        marks = self._records.marks(*seen)
        few = len({mark.uuid for mark in marks}) <= FOLLOWED_GPUS
        tail_until_s = min(until_wall_s, now_wall_s) if few else None
        found = stretches_of(
            marks,
            samples=self._records.samples,
            ends={job_id: one.ends_wall_s for job_id, one in facts.items()},
            tail_until_wall_s=tail_until_s,
        )
        stretches = [part for one in found if (part := one.within(since_wall_s, until_wall_s)) is not None]
        nodes = within(self._node_stretches(*seen, tail_until_s=tail_until_s), since_wall_s, until_wall_s)
        whole = sum((one.beside for one in nodes), Beside())
        shares = [Beside()] * len(stretches) if self._apart else shares_of(stretches, nodes)
        rest = whole + sum(shares, Beside()).part(-1.0)
        return account_of(stretches, shares, self._worths(stretches, shares), apart=rest)

    def _node_stretches(self, since_s: float, until_s: float, *, tail_until_s: float | None) -> list[NodeStretch]:
        marks = self._records.node_marks(since_s, until_s)
        found = node_stretches_of(marks)
        last = {mark.node: mark for mark in sorted(marks, key=lambda mark: (mark.life_wall_s, mark.up_s))}
        for node, mark in last.items():
            if tail_until_s is not None and mark.wall_s < tail_until_s:
                found += node_tail(mark, self._records.node_samples(node, mark.wall_s, tail_until_s))
        return found

    def check(self, since_wall_s: float, until_wall_s: float) -> NodeCheck:
        """The nodes' draw, integrated where it is known."""
        known_s = drawn_joules = 0.0
        for draws in self._records.node_draws(since_wall_s, until_wall_s).values():
            for (from_s, from_watts), (to_s, to_watts) in pairwise(draws):
                if to_s - from_s <= _WIDEST_GAP_S:
                    known_s += to_s - from_s
                    drawn_joules += (to_s - from_s) * (from_watts + to_watts) / 2
        return NodeCheck(known_s, drawn_joules)

    def _worths(self, stretches: Sequence[Stretch], shares: Sequence[Beside]) -> list[Worth]:
        if not stretches:
            return []
        begins = np.array([one.from_wall_s for one in stretches])
        lengths = np.maximum(1e-3, np.array([one.length_s for one in stretches]))
        joules = self._pue * np.array(
            [one.used.joules + beside.joules for one, beside in zip(stretches, shares, strict=True)]
        )
        nothing = np.full(len(stretches), np.nan)
        prices = nothing if self._rates is None else mean_prices(self._rates, begins, lengths)
        money = joules / JOULES_PER_KWH * prices
        grams = nothing if self._intensity is None else joules * self._intensity.mean(begins, begins + lengths)
        return [Worth(_known(one), _known(other)) for one, other in zip(money.tolist(), grams.tolist(), strict=True)]


def chunks(since_wall_s: float, until_wall_s: float) -> Iterator[tuple[float, float]]:
    begin_s = since_wall_s
    while begin_s < until_wall_s:
        yield begin_s, min(begin_s + CHUNK_S, until_wall_s)
        begin_s += CHUNK_S


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value
