"""Brings every GPU to what it should be held at: the journal first, then board after board, past every refusal."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence

from slurm_power.daemons.node_agent_book import AgentBook
from slurm_power.daemons.node_agent_gpu import ManagedGpu
from slurm_power.daemons.node_agent_views import GpuView
from slurm_power.daemons.node_agent_wants import Wants
from slurm_power.errors import DeviceError, Unavailable
from slurm_power.gpu.borrowing import Borrow, GiveBack, Keep, Knob, Step
from slurm_power.ports.clock import Clock
from slurm_power.ports.gpu import GpuInventory

log = logging.getLogger(__name__)

_SAMPLE_ANEW_S = 0.05
"""Of the 200 ms that the SPANK plugin gives the agent."""


class CapKeeper:
    def __init__(
        self, wants: Wants, *, book: AgentBook, inventory: GpuInventory, clock: Clock, monitor_only: bool
    ) -> None:
        self._wants = wants
        self._book = book
        self._inventory = inventory
        self._clock = clock
        self._monitor_only = monitor_only
        self._gpus: dict[str, ManagedGpu] = {}

    @property
    def gpus(self) -> Collection[ManagedGpu]:
        return self._gpus.values()

    def gpu(self, uuid: str) -> ManagedGpu | None:
        return self._gpus.get(uuid)

    def views(self) -> list[GpuView]:
        return [self._wants.view(gpu) for gpu in self._gpus.values()]

    def find_gpus(self) -> None:
        """Look the boards up: at start, and from then on for those that are lost or come late."""
        try:
            found = [ManagedGpu(gpu) for gpu in self._inventory.gpus()]
        except (DeviceError, Unavailable) as error:
            log.error("cannot list the GPUs: %s", error)
            return
        for managed in found:
            known = self._gpus.setdefault(managed.uuid, managed)
            if known.lost:
                known.replace_device(managed)

    def sample(self) -> None:
        now_s = self._clock.now_s()
        for gpu in self._gpus.values():
            came_back = gpu.take_sample(now_s=now_s)
            if came_back and gpu.board_was_reset():
                gpu.last_set.clear()
                self._book.strike_out([(gpu.uuid, knob) for knob in Knob])

    def sample_anew(self, uuids: Collection[str]) -> list[ManagedGpu]:
        """These boards once more, between two samples. Slurm waits meanwhile, so slow ones keep their last sample, as
        those do that are lost."""
        until_s = self._clock.now_s() + _SAMPLE_ANEW_S
        fresh = []
        for gpu in [gpu for gpu in self._gpus.values() if gpu.uuid in uuids and not gpu.lost]:
            if self._clock.now_s() > until_s:
                break
            gpu.take_sample(now_s=self._clock.now_s())
            fresh.append(gpu)
        return fresh

    def apply(self) -> None:
        self._apply(self._gpus.values())

    def settle(self, uuids: Collection[str]) -> None:
        """Bring these GPUs to their new caps now, not at the next tick."""
        gpus = [gpu for gpu in self._gpus.values() if gpu.uuid in uuids and not gpu.lost]
        for gpu in gpus:
            gpu.refresh_enforced()
        self._apply(gpus)

    def give_back_all(self) -> None:
        """Also in a monitor: what an earlier run borrowed is not its to keep."""
        self._carry_out(
            [
                (self._gpus[uuid], knob, GiveBack(loan.found))
                for (uuid, knob), loan in self._book.loans.items()
                if uuid in self._gpus
            ]
        )

    def _apply(self, gpus: Iterable[ManagedGpu]) -> None:
        if self._monitor_only:
            return
        steps: list[tuple[ManagedGpu, Knob, Step]] = []
        for gpu in gpus:
            open_steps = [(gpu, knob, step) for knob, step in self._wants.steps(gpu) if not isinstance(step, Keep)]
            if not open_steps:
                gpu.nothing_refused()
            steps += open_steps
        self._carry_out(steps)

    def _carry_out(self, steps: Sequence[tuple[ManagedGpu, Knob, Step]]) -> None:
        now_s = self._clock.now_s()
        returned: list[tuple[str, Knob]] = []
        for gpu, knob, step in self._covered(steps):
            if gpu.carry_out(knob, step, now_s=now_s) and isinstance(step, GiveBack):
                returned.append((gpu.uuid, knob))
        if returned:
            self._book.strike_out(returned)

    def _covered(self, steps: Sequence[tuple[ManagedGpu, Knob, Step]]) -> Sequence[tuple[ManagedGpu, Knob, Step]]:
        """Write the new loans down; without them on disk nothing new is borrowed."""
        borrowed = [(gpu, knob) for gpu, knob, step in steps if isinstance(step, Borrow)]
        if not borrowed:
            return steps
        try:
            self._book.lend([self._wants.loan(gpu, knob) for gpu, knob in borrowed])
        except Unavailable as error:
            for gpu, _ in borrowed:
                gpu.refuse(f"not capped, for it could not be given back after a crash: {error}")
            return [entry for entry in steps if not isinstance(entry[2], Borrow)]
        return steps
