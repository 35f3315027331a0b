"""The [agent] table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slurm_power.errors import require


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAgentConfig:
    safe_cap_watts: float
    """Cap of every GPU while no lease of the controller holds. No default: only the site knows it."""

    node_base_watts: float | None = None
    """What the node draws beside its GPUs. Not given: unknown, and so is the node's draw."""

    controller_url: str = ""
    """http://host:port of slurm-powerd. Empty: this node has no controller, gets no leases and no safe cap."""

    controller_uids: tuple[int, ...] = (0,)
    """Who slurm-powerd runs as; leases sealed by anybody else are refused."""

    link_timeout_s: float = 5.0
    """Of one exchange with the controller."""

    sample_period_s: float = 1.0
    """How often every GPU is read and its cap checked. 0.1 is possible."""

    report_period_s: float = 2.0
    """How often the controller is told, and gives a lease."""

    telemetry_flush_s: float = 5.0
    """How often samples go to the store, as one batch."""

    seal_period_s: float = 300.0
    """How often each GPU's samples are sealed into one block for quality reports. At most an hour."""

    energy_mark_period_s: float = 600.0
    """How often it is written down who holds which GPU and what was used so far."""

    gpu_minors: tuple[int, ...] = ()
    """Minor number (N of /dev/nvidiaN) of each of Slurm's GPU indices, where gres.conf is not in minor order."""

    min_user_cap_watts: float | None = None
    """Users cannot cap their GPUs below this. Not given: the board's minimum."""

    max_user_cap_watts: float | None = None
    """A user's cap above this counts as this. Not given: the board's maximum."""

    min_user_clock_mhz: int | None = None
    """Users cannot lock their GPUs' SM clock below this. Not given: the board's minimum."""

    max_user_clock_mhz: int | None = None
    """A user's clock above this counts as this. Not given: the board's maximum."""

    presence_period_s: float = 10.0
    """How often we look whether the jobs we know still have processes here."""

    absent_grace_s: float = 30.0
    """A job without any process for so long has ended, even if nobody told us."""

    rescan_period_s: float = 30.0
    """How often we look whether a lost GPU came back."""

    socket: Path = Path("/run/slurm-power/agent.sock")
    """For the SPANK plugin and the job wrappers; %n is the node's name."""

    journal: Path = Path("/var/lib/slurm-power/journal.jsonl")
    """What we borrowed from the GPUs; %n is the node's name."""

    spool: Path | None = None
    """Telemetry not yet delivered; %n is the node's name. Not given: as [store] says."""

    munge_socket: Path | None = None
    """Not given: munge's own default."""

    munge_ttl_s: int = 60
    """Lifetime of a sealed report."""

    client_timeout_s: float = 2.0
    """A local client must finish its request, and take its answer, within this."""

    requests_per_s: float = 50.0
    """Of one user, over all connections; root is not counted."""

    points_per_s: float = 500.0
    """Telemetry points of one user, over all jobs."""

    metrics_host: str = "127.0.0.1"
    """Where Prometheus may ask for /metrics."""

    metrics_port: int = 0
    """0: nowhere."""

    def __post_init__(self) -> None:
        require(0 <= self.metrics_port < 65536, "metrics_port", self.metrics_port, "must be a TCP port, or 0")
        require(self.safe_cap_watts > 0, "safe_cap_watts", self.safe_cap_watts, "must be positive")
        base = self.node_base_watts
        require(base is None or base >= 0, "node_base_watts", base, "must be zero or more")
        for key in _POSITIVE:
            value = getattr(self, key)
            require(value > 0, key, value, "must be positive")
        require(self.sample_period_s >= 0.05, "sample_period_s", self.sample_period_s, "must be at least 0.05")
        require(0 < self.seal_period_s <= 3600, "seal_period_s", self.seal_period_s, "must be above 0, at most 3600")
        period_s = self.energy_mark_period_s
        require(period_s <= 1500, "energy_mark_period_s", period_s, "must be at most 1500")
        require(
            self.controller_url == "" or self.controller_url.startswith(("http://", "https://")),
            "controller_url",
            self.controller_url,
            "must start with http:// or https://",
        )
        self._check_user_range("cap_watts")
        self._check_user_range("clock_mhz")
        minors = self.gpu_minors
        require(len(set(minors)) == len(minors), "gpu_minors", minors, "names a GPU twice")

    def _check_user_range(self, what: str) -> None:
        lowest, highest = f"min_user_{what}", f"max_user_{what}"
        low, high = getattr(self, lowest), getattr(self, highest)
        require(low is None or low > 0, lowest, low, "must be positive")
        require(high is None or high > 0, highest, high, "must be positive")
        if low is not None and high is not None:
            require(low <= high, lowest, low, f"must not be above {highest} = {high}")


_POSITIVE = (
    "link_timeout_s",
    "report_period_s",
    "telemetry_flush_s",
    "energy_mark_period_s",
    "presence_period_s",
    "absent_grace_s",
    "rescan_period_s",
    "munge_ttl_s",
    "client_timeout_s",
    "requests_per_s",
    "points_per_s",
)
