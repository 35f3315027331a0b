"""The controller's own settings, [controller]."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slurm_power.errors import require


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerConfig:
    mode: Literal["manage", "observe"] = "manage"
    """observe: measure, forecast and plan, but write to nothing."""

    tick_period_s: float = 60.0
    """How often the site is planned anew."""

    fast_period_s: float = 5.0
    """How often the battery's setpoint follows the live meter."""

    lease_s: float = 150.0
    """How long the agents keep a cap after the controller goes silent; then their safe cap applies."""

    max_reading_age_s: float = 15.0
    """Readings older than this are unknown."""

    history_s: float = 400 * 86400.0
    """How far back the forecaster looks."""

    listen_host: str = "127.0.0.1"
    listen_port: int = 6830
    """Agents report here; `slurm-power status` asks here."""

    allowed_agent_uids: tuple[int, ...] = (0,)
    """Who may report as a node agent, as the cluster's munge credentials name them."""

    allowed_pool_uids: tuple[int, ...] = (0,)
    """Who may report as a pool manager: the users that slurm-power-pool runs as."""

    munge_socket: Path | None = None
    """None: munge's default socket."""

    state_path: Path
    """Peaks already set in this billing period and the open metering interval; survives restarts."""

    job_watts_file: Path | None = None
    """Where job_submit.lua reads what jobs of each owner and name draw. None: each counts as the board's maximum."""

    admin_token_file: Path | None = None
    """Who may hold the automation, let it observe, or set a target over HTTP: lines `name token`. None: nobody."""

    def __post_init__(self) -> None:
        require(self.tick_period_s > 0, "tick_period_s", self.tick_period_s, "must be above 0")
        require(self.fast_period_s > 0, "fast_period_s", self.fast_period_s, "must be above 0")
        require(self.lease_s >= 2 * self.tick_period_s, "lease_s", self.lease_s, "must outlast two ticks")
        require(0 < self.listen_port < 65536, "listen_port", self.listen_port, "must be a TCP port")
