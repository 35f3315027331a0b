"""Builds the pool manager and its router from the config. Apart from compose.py: it runs where no controller does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm_power.adapters.api_keys_file import ApiKeys
from slurm_power.adapters.clock_system import SystemClock
from slurm_power.adapters.journal_file import FileJournal
from slurm_power.adapters.munge_credentials import MungeCredentials
from slurm_power.adapters.pool_link_http import HttpPoolLink
from slurm_power.adapters.sealed_http import SealedClient
from slurm_power.adapters.serving_instance_http import HttpServingInstance
from slurm_power.adapters.serving_jobs_slurm import ServingJobShape, SlurmServingJobs, default_endpoints
from slurm_power.adapters.serving_profile_file import read_serving_profile
from slurm_power.adapters.serving_stream_http import HttpInstanceStreams
from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.daemons.controller_config import ControllerConfig
from slurm_power.daemons.node_agent_config import NodeAgentConfig
from slurm_power.daemons.pool_clocks import PoolClocks
from slurm_power.daemons.pool_config import PoolConfig
from slurm_power.daemons.pool_leash import PoolLeash
from slurm_power.daemons.pool_manager import PoolManager, PoolParts
from slurm_power.daemons.pool_roster import Roster
from slurm_power.daemons.pool_sizes import PoolSizes
from slurm_power.daemons.pool_state import load_state
from slurm_power.daemons.pool_watch import PoolWatch
from slurm_power.daemons.router_config import RouterConfig
from slurm_power.daemons.router_desk import Desk
from slurm_power.errors import ConfigError
from slurm_power.llm.instance_clock import ClockConfig
from slurm_power.llm.profile import ServingProfile
from slurm_power.llm.request_class import RequestClass, Size, Slo
from slurm_power.ports.serving_jobs import ServingJobs
from slurm_power.site_config import read_site_config

TABLES = ("serving_pools", "router", "slurm")


@dataclass(frozen=True, slots=True)
class PoolProcess:
    """What the program runs, and what the router's face is made of."""

    manager: PoolManager
    desk: Desk
    streams: HttpInstanceStreams
    keys: ApiKeys | None
    router: RouterConfig

    def models(self) -> Mapping[str, bool]:
        return self.manager.models()

    def view(self) -> Any:
        return self.manager.view()


def pool_process(config_path: Path, *, layers: frozenset[str]) -> PoolProcess:
    """Raise ConfigError for a bad table, profile or keys file."""
    site = read_site_config(config_path, only=TABLES)
    config, router = site.table(PoolConfig), site.table(RouterConfig)
    endpoints = config.endpoints or default_endpoints(os.environ)
    _prepare(endpoints)
    jobs = SlurmServingJobs(_shape(config, endpoints), site.table(SlurmConfig))
    keys = None if router.api_keys_file is None else ApiKeys(router.api_keys_file)
    return _build(config, router, jobs, keys, layers)


def _build(
    config: PoolConfig, router: RouterConfig, jobs: ServingJobs, keys: ApiKeys | None, layers: frozenset[str]
) -> PoolProcess:
    clock, profile = SystemClock(), read_serving_profile(config.profile)
    _check(config, profile)
    small = None if config.small_profile is None else read_serving_profile(config.small_profile)
    journal = FileJournal(config.state_path)
    state = load_state(journal)
    roster, slo = Roster(), _slo(router)
    roster.one_pool = "queue" not in layers
    hurry: list[PoolManager] = []

    def on_hurry(pools: frozenset[RequestClass]) -> None:
        hurry[0].hurry(pools)

    desk = Desk(
        roster,
        slo=slo,
        lengths=state.lengths,
        now_s=clock.now_s,
        max_waiting=router.max_waiting,
        patience_s=router.patience_s,
        on_hurry=on_hurry,
    )
    desk.by_class = "queue" in layers
    watch = PoolWatch(
        config, roster=roster, jobs=jobs, open_instance=HttpServingInstance, profile=profile, clock=clock,
        pools=state.pools,
    )  # fmt: skip
    sizes = PoolSizes(
        config, roster=roster, desk=desk, watch=watch, jobs=jobs, profile=profile, clock=clock, layers=layers,
        template=state.template,
    )  # fmt: skip
    clock_config = ClockConfig(epoch_s=config.instance_period_s)
    clocks = PoolClocks(
        roster=roster, watch=watch, clock=clock, slo=slo, config=clock_config, steer="instance" in layers
    )
    manager = PoolManager(
        PoolParts(
            config=config,
            roster=roster,
            desk=desk,
            watch=watch,
            sizes=sizes,
            clocks=clocks,
            leash=PoolLeash(config, roster=roster, watch=watch, small_profile=small, clock=clock),
            link=_link(config) if config.controller_url else None,
            journal=journal,
            on_look=(lambda: None) if keys is None else keys.refresh,
        )
    )
    hurry.append(manager)
    return PoolProcess(manager, desk, HttpInstanceStreams(silence_s=router.silence_s), keys, router)


def admin_link(config_path: Path, url: str) -> HttpPoolLink:
    """For an admin's wish, on the controller's host."""
    site = read_site_config(config_path, only=("controller", "agent"))
    trusted = site.table(NodeAgentConfig).controller_uids if "agent" in site.given else (0,)
    credentials = MungeCredentials(socket=site.table(ControllerConfig).munge_socket)
    return HttpPoolLink(SealedClient(url, credentials=credentials, allowed_uids=trusted))


def _shape(config: PoolConfig, endpoints: Path) -> ServingJobShape:
    return ServingJobShape(
        owner=config.owner,
        script=config.sbatch_script,
        models=tuple(model for model in (config.model, config.small_model) if model),
        served_model_name=config.served_model_name,
        sbatch_options=config.sbatch_options,
        serve_options=config.serve_options,
        endpoints=endpoints,
        environment=config.job_environment,
    )


def _prepare(endpoints: Path) -> None:
    """What lies there says where requests and steering tokens are sent: nobody else may write it."""
    try:
        endpoints.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = endpoints.stat()
    except OSError as cause:
        raise ConfigError(f"[serving_pools] endpoints = {endpoints}: {cause.strerror}") from cause
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        rule = "must be ours, and writable by nobody else"
        raise ConfigError(f"[serving_pools] endpoints = {endpoints}: {rule}")


def _check(config: PoolConfig, profile: ServingProfile) -> None:
    for gpus in (config.gpus_per_instance, *config.degrees):
        if gpus not in profile.shards:
            known = ", ".join(map(str, sorted(profile.shards)))
            raise ConfigError(f"[serving_pools] profile = {config.profile}: knows {known} GPUs, not {gpus}")


def _slo(router: RouterConfig) -> Slo:
    due = {Size.SMALL: router.ttft_small_s, Size.MEDIUM: router.ttft_medium_s, Size.LARGE: router.ttft_large_s}
    return Slo(ttft_s=due, tbt_s=router.tbt_s)


def _link(config: PoolConfig) -> HttpPoolLink:
    credentials = MungeCredentials(socket=config.munge_socket)
    return HttpPoolLink(
        SealedClient(config.controller_url, credentials=credentials, allowed_uids=config.controller_uids)
    )
