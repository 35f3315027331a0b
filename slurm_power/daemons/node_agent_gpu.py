"""One GPU in the agent's hands: its last sample, our last writes to it, and its trouble in words."""

from __future__ import annotations

import logging

from slurm_power.errors import DeviceError, DeviceGone, SlurmPowerError, Unavailable
from slurm_power.gpu.allocation import NodeGpu
from slurm_power.gpu.borrowing import Borrow, Change, GiveBack, Keep, Knob, Step
from slurm_power.gpu.caps import same_cap
from slurm_power.ports.gpu import Gpu, GpuSample

log = logging.getLogger(__name__)

RETRY_S = 10.0
"""A refused write is tried again after this, or at once when something else is wanted."""


class ManagedGpu:
    """Raises DeviceError when the board cannot even tell its identity and limits."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.identity = gpu.identity
        self.limits = gpu.limits
        self.sample: GpuSample | None = None
        self.taken_at_s: float | None = None
        self.enforced_watts: float | None = None
        self.lost = False
        self.last_set: dict[Knob, float] = {}
        self._trouble: str | None = None  # it cannot be read
        self._refusal: str | None = None  # it cannot be set
        self._refused: dict[Knob, tuple[float | None, float]] = {}  # value, and when to try it again

    @property
    def uuid(self) -> str:
        return self.identity.uuid

    @property
    def error(self) -> str | None:
        return self._trouble or self._refusal

    def node_gpu(self) -> NodeGpu:
        return NodeGpu(self.uuid, self.identity.minor_number, self.identity.mig_enabled)

    def take_sample(self, *, now_s: float) -> bool:
        """Read all counters; True when the GPU was lost and is back."""
        try:
            self.sample = self._gpu.sample()
        except (DeviceError, Unavailable) as error:
            self._unreadable(error)
            return False
        came_back, self.lost = self.lost, False
        self.taken_at_s = now_s
        self.enforced_watts = self.sample.enforced_cap_watts
        self._set_trouble(None)
        return came_back

    def refresh_enforced(self) -> None:
        """Read the enforced limit alone, between two samples."""
        try:
            self.enforced_watts = self._gpu.enforced_cap_watts()
        except (DeviceError, Unavailable) as error:
            self._unreadable(error)

    def board_was_reset(self) -> bool:
        """True when the limit is not the one it held for us: a reset board has forgotten it."""
        last = self.last_set.get(Knob.CAP)
        return last is not None and self.enforced_watts is not None and not same_cap(last, self.enforced_watts)

    def note_held_cap(self, watts: float) -> None:
        """After a restart: the board holds what an earlier run of the agent set."""
        if self.enforced_watts is not None and same_cap(self.enforced_watts, watts):
            self.last_set.setdefault(Knob.CAP, watts)

    def replace_device(self, other: ManagedGpu) -> None:
        """The same board, opened anew."""
        self._gpu = other._gpu

    def carry_out(self, knob: Knob, step: Step, *, now_s: float) -> bool:
        """True when the board now holds what `step` wanted. A refusal is kept in `error`, never raised."""
        value = None if isinstance(step, Keep) else step.value
        refused = self._refused.get(knob)
        if refused is not None and refused[0] == value and now_s < refused[1]:
            return False
        try:
            self._write(knob, step)
        except (DeviceGone, Unavailable) as error:
            self._unreadable(error)
            return False
        except DeviceError as error:
            self._refused[knob] = (value, now_s + RETRY_S)
            self.refuse(str(error))
            return False
        self._refused.pop(knob, None)
        if not self._refused:
            self.refuse(None)
        return True

    def refuse(self, reason: str | None) -> None:
        """Note (None: clear) why what is wanted cannot be set."""
        if reason is not None and reason != self._refusal:
            log.error("%s: %s", self.uuid, reason)
        self._refusal = reason

    def nothing_refused(self) -> None:
        """The board is as wanted: an older refusal no longer matters."""
        self._refused.clear()
        self.refuse(None)

    def _write(self, knob: Knob, step: Step) -> None:
        match step:
            case Keep():
                return
            case Borrow(value) | Change(value) | GiveBack(value) if knob is Knob.CAP and value is not None:
                if self.enforced_watts is None or not same_cap(self.enforced_watts, value):
                    self._gpu.set_cap_watts(value)
                self.enforced_watts = self.last_set[knob] = value
            case Borrow(value) | Change(value):
                self._gpu.lock_clock_mhz(int(value))
                self.last_set[knob] = value
            case GiveBack():
                self._gpu.unlock_clock()
                self.last_set.pop(knob, None)

    def _unreadable(self, error: SlurmPowerError) -> None:
        self.sample, self.enforced_watts = None, None
        self.lost = self.lost or isinstance(error, DeviceGone)
        self._set_trouble(str(error))

    def _set_trouble(self, trouble: str | None) -> None:
        if trouble != self._trouble:
            log.warning("%s: %s", self.uuid, trouble or "answers again")
        self._trouble = trouble
