"""Whose doing it is when a GPU is slower than it could be: the operator's cap, the user's, the infrastructure. Pure.

NVML only says "software power cap". Who asked for the limit that is enforced is what the agent knows (cap_source);
whether it is below what the board was delivered with, the board's facts tell.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from slurm_power.sla.sample import CAP_SOURCES
from slurm_power.sla.samples import Samples

CAP_TOLERANCE_WATTS = 1.0

Mask = NDArray[np.bool_]

IDLE, SW_POWER_CAP, HW_SLOWDOWN, SW_THERMAL, HW_THERMAL, POWER_BRAKE = 0x1, 0x4, 0x8, 0x20, 0x40, 0x80
REASONS = {
    "sw_power_cap": SW_POWER_CAP,
    "hw_slowdown": HW_SLOWDOWN,
    "sw_thermal": SW_THERMAL,
    "hw_thermal": HW_THERMAL,
    "power_brake": POWER_BRAKE,
}
"""NVML's clocks event reasons that hold a GPU back (nvml.h); 0x2 (a clock lock), 0x10 and 0x100 are settings."""

FAULTS = HW_SLOWDOWN | SW_THERMAL | HW_THERMAL | POWER_BRAKE


class Whose(IntEnum):
    """Who set the limit that holds a GPU back."""

    BOARD = 0  # the board as delivered: how a GPU under full load works
    OPERATOR = 1  # slurm-power's lease or safe cap: agreed with the site
    USER = 2  # the job's own wish
    SITE = 3  # below the delivered limit, and nobody of the above asked: the infrastructure answers for it


class Cause(IntEnum):
    """What held the clock at a moment."""

    FREE = 0
    BOARD = 1
    OPERATOR = 2
    USER = 3
    SITE = 4
    FAULT = 5


POLICY = (Cause.OPERATOR, Cause.USER)
INFRASTRUCTURE = (Cause.SITE, Cause.FAULT)

_SOURCE_WHOSE = {
    "user": Whose.USER,
    "lease": Whose.OPERATOR,
    "safe": Whose.OPERATOR,
    "board": Whose.OPERATOR,  # we asked for less than the board takes, and got its minimum
    "found": Whose.SITE,
}
_TABLE = np.array([_SOURCE_WHOSE[name] for name in CAP_SOURCES] + [Whose.SITE], np.int8)  # -1, unknown: the last


def whose_cap(samples: Samples, *, tdp_watts: float | None) -> NDArray[np.int8]:
    """Of the limit in force at each reading. A limit that is not known to be lowered is the board's."""
    whose = _TABLE[samples["cap_source"]]
    if tdp_watts is None:  # nobody knows whether a found limit is a low one
        lowered = (whose != Whose.SITE) & np.isfinite(samples["cap_watts"])
    else:
        lowered = samples["cap_watts"] < tdp_watts - CAP_TOLERANCE_WATTS
    return np.where(lowered, whose, np.int8(Whose.BOARD)).astype(np.int8)


def causes(samples: Samples, whose: NDArray[np.int8]) -> NDArray[np.int8]:
    """A fault goes before a cap: while it is too hot, the cap is not what holds."""
    reasons = np.maximum(samples["throttle_reasons"], 0)
    capped = (reasons & SW_POWER_CAP) != 0
    found = np.where(capped, whose + np.int8(1), np.int8(Cause.FREE))
    return np.where((reasons & FAULTS) != 0, np.int8(Cause.FAULT), found).astype(np.int8)
