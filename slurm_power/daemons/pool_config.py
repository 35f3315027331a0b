"""Table [serving_pools]: what is served, on which instances, and how often that is decided anew."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from slurm_power.errors import require
from slurm_power.llm.request_class import REQUEST_CLASSES

LAYERS = ("instance", "queue", "cluster")
_ABOVE_ZERO = (
    "watch_period_s", "instance_period_s", "cluster_period_s", "slot_s", "report_period_s", "start_timeout_s",
)  # fmt: skip
_OWNER = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    owner: str = "llm"
    """Marks our jobs: letters, digits and dashes. Two managers of one user need two names."""

    model: str
    """Hugging Face folder of the model that is served."""

    small_model: str = ""
    """Folder of the model that may stand in for it when watts are short; empty: none may."""

    served_model_name: str = "chat"
    """What clients ask for, whichever of the two is active."""

    profile: Path
    """Of the model's instances: `slurm-power profile serve`, or one of those that come with the product."""

    small_profile: Path | None = None

    gpus_per_instance: int
    """Where nothing else is decided; the profile must have it."""

    degrees: tuple[int, ...] = ()
    """GPUs an instance may have, of those in the profile, one to a task of its job; empty: gpus_per_instance alone."""

    pools: tuple[str, ...] = ()
    """Pools that always exist, by their largest request: SS to LL. Empty: those that save most, as the load is."""

    most_instances: int
    """Of all pools together: what the site lends to this service. Without the cluster layer so many always run."""

    least_instances: int = 1

    sbatch_script: Path
    """etc/examples/serve.sbatch, or one like it: takes the model folder and options of slurm-power-serve."""

    sbatch_options: tuple[str, ...] = ()
    serve_options: tuple[str, ...] = ()

    endpoints: Path | None = None
    """Where instances say where they are; None: the folder that slurm-power-serve takes by itself."""

    state_path: Path = Path("/var/lib/slurm-power-pool/state.json")
    """What was learnt of output lengths and arrivals. Without it the manager starts anew."""

    max_num_seqs: int = 128
    """Of an instance, when nothing limits it; as its --max-num-seqs."""

    block_tokens: int = 16
    watch_period_s: float = 2.0
    instance_period_s: float = 5.0
    cluster_period_s: float = 1800.0
    slot_s: float = 300.0
    """Arrivals are counted and foreseen by slots of so long."""

    early_fraction: float = 0.3
    """More instances are started before the epoch's end when the load is so much above what it was made for."""

    drain_s: float = 120.0
    """How long an instance that is to end may finish what it has."""

    start_timeout_s: float = 900.0
    """A job that does not serve so long after it began to run is given up."""

    controller_url: str = ""
    """Where draws are reported to and watt budgets come from; empty: there are none."""

    controller_uids: tuple[int, ...] = (0,)
    munge_socket: Path | None = None
    report_period_s: float = 5.0
    job_environment: Mapping[str, str] = field(default_factory=dict)
    """Of the serving jobs, beside what the manager itself has."""

    def __post_init__(self) -> None:
        require(_OWNER.fullmatch(self.owner) is not None, "owner", self.owner, "must be letters, digits and dashes")
        known = [one.name for one in REQUEST_CLASSES]
        for name in self.pools:
            require(name in known, "pools", name, f"must be of {', '.join(known)}")
        require(self.gpus_per_instance >= 1, "gpus_per_instance", self.gpus_per_instance, "must be at least 1")
        require(
            1 <= self.least_instances <= self.most_instances,
            "least_instances",
            self.least_instances,
            f"must be 1 to most_instances ({self.most_instances})",
        )
        require(self.max_num_seqs >= 1, "max_num_seqs", self.max_num_seqs, "must be at least 1")
        require(self.early_fraction > 0, "early_fraction", self.early_fraction, "must be above 0")
        for key in _ABOVE_ZERO:
            require(getattr(self, key) > 0, key, getattr(self, key), "must be above 0")
        require(self.drain_s >= 0, "drain_s", self.drain_s, "must be at least 0")
        require(not (self.small_model and self.small_profile is None), "small_profile", None, "small_model needs one")
