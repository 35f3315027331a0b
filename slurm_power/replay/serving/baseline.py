"""The honest baseline: the fewest servers that keep the deadlines in the busiest five minutes at the highest clock."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from slurm_power.errors import ConfigError
from slurm_power.llm.profile import ServingProfile
from slurm_power.llm.request_class import DEFAULT_SLO, Slo
from slurm_power.replay.serving.policies import POLICIES, SimulationConfig
from slurm_power.replay.serving.simulate import simulate
from slurm_power.replay.serving.trace import Requests, busiest

WINDOW_S, LEAD_S = 300.0, 120.0
_MOST_SERVERS = 4096


def fewest_servers(requests: Requests, profile: ServingProfile, *, slo: Slo = DEFAULT_SLO) -> int:
    """With one instance on every server. The two minutes before the window fill the instances; they are not judged."""
    from_s = busiest(requests, WINDOW_S)
    lead_s = min(LEAD_S, from_s)
    window = requests.between(from_s - lead_s, min(requests.span_s, from_s + WINDOW_S))
    low, high = 0, 1
    while not _keeps(window, lead_s, profile, high, slo):
        low, high = high, high * 2
        if high > _MOST_SERVERS:
            raise ConfigError(f"not even {_MOST_SERVERS} servers of profile {profile.name} keep the deadlines")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _keeps(window, lead_s, profile, middle, slo) else (middle, high)
    return high


def _keeps(window: Requests, lead_s: float, profile: ServingProfile, servers: int, slo: Slo) -> bool:
    found = simulate(
        window, SimulationConfig(policy=POLICIES["single-pool"], profile=profile, servers=servers, slo=slo)
    )
    judged = window.arrival_s >= lead_s
    whole = bool(np.mean(found.kept[judged]) >= 0.99)
    return whole and replace(found, attainment_fraction=1.0).keeps(slo)
