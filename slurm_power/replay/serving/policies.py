"""Which managers act in a replay, and with what they are set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from slurm_power.errors import ConfigError
from slurm_power.llm.arrivals import ArrivalConfig
from slurm_power.llm.fleet import FleetConfig
from slurm_power.llm.instance_clock import ClockConfig
from slurm_power.llm.profile import ServingProfile
from slurm_power.llm.request_class import DEFAULT_SLO, Slo


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    pools: bool = False  # by class, else one for all
    instances: bool = False  # as many as the load needs, else all servers
    shard: bool = False  # the degree of parallelism follows the load, else one instance a server
    clock: bool = False  # the lowest that keeps the deadlines, else the highest
    knows_future: bool = False


POLICIES: Mapping[str, Policy] = {
    one.name: one
    for one in (
        Policy("single-pool"),
        Policy("multi-pool", pools=True),
        Policy("scale-instances", pools=True, instances=True),
        Policy("scale-shard", pools=True, shard=True),
        Policy("scale-frequency", pools=True, clock=True),
        Policy("all", pools=True, instances=True, shard=True, clock=True),
        Policy("oracle", pools=True, instances=True, shard=True, clock=True, knows_future=True),
    )
}


def policy_named(name: str) -> Policy:
    if name not in POLICIES:
        raise ConfigError(f"--policies {name[:60]!r}: unknown; known: {', '.join(POLICIES)}")
    return POLICIES[name]


@dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    policy: Policy
    profile: ServingProfile
    """What the managers believe."""

    truth: ServingProfile | None = None
    """What the instances really do; None: as believed."""

    servers: int
    """That are on with a fixed fleet, and at the start."""

    slo: Slo = DEFAULT_SLO
    predictor_right_fraction: float = 0.8
    """A trace has no callers and no texts to learn from: the class of an answer is foreseen rightly in this share of
    cases, else as one of the two others. ASSUMED."""

    template: Mapping[int, float] = field(default_factory=dict)
    """Tokens per second by slot of the week, from weeks before."""

    lost_server_at_s: float | None = None
    seed: int = 0
    fleet: FleetConfig = FleetConfig()
    arrivals: ArrivalConfig = ArrivalConfig()
    clock: ClockConfig = ClockConfig()
    empty_server_off_s: float = 120.0

    @property
    def real(self) -> ServingProfile:
        return self.truth or self.profile


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Assumptions unless a site gives its own."""

    per_gpu_hour: float = 3.0
    currency: str = "USD"
    carbon_g_per_kwh: tuple[float, ...] = (400.0,)
    """By hour from the trace's beginning, repeated."""
