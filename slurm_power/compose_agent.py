"""Builds the node agent from the site's config. Apart from compose.py so that a node does not load the controller."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slurm_power.adapters.boot_id import read_boot_id
from slurm_power.adapters.clock_system import SystemClock
from slurm_power.adapters.gpu_nvml import NvmlInventory
from slurm_power.adapters.job_presence_proc import ProcJobPresence
from slurm_power.adapters.journal_file import FileJournal
from slurm_power.adapters.munge_credentials import MungeCredentials
from slurm_power.adapters.rapl import Rapl
from slurm_power.adapters.telemetry_config import StoreConfig
from slurm_power.adapters.telemetry_open import open_store
from slurm_power.daemons.metrics_listener import MetricsListener
from slurm_power.daemons.node_agent import NodeAgent, NodeAgentConfig
from slurm_power.daemons.node_agent_book import AgentBook
from slurm_power.daemons.node_agent_link import LinkWorker
from slurm_power.daemons.node_agent_loop import AgentLoop
from slurm_power.daemons.node_agent_ops import LocalOps
from slurm_power.daemons.node_agent_socket import LocalServer
from slurm_power.errors import ConfigError, NotPermitted
from slurm_power.ports.telemetry_store import TelemetryStore
from slurm_power.site_config import SiteConfig, read_site_config

TABLES = ("agent", "store")
"""All of the site's config that an agent reads."""


@dataclass(frozen=True, slots=True)
class AgentProcess:
    """What the program runs, and what it closes at the end."""

    loop: AgentLoop
    store: TelemetryStore | None
    inventory: NvmlInventory

    def close(self) -> None:
        self.inventory.close()
        if self.store is not None:
            self.store.close()


def agent_process(config_path: Path, *, node_name: str, monitor_only: bool) -> AgentProcess:
    """Raise ConfigError for a bad table or socket, NotPermitted when caps are to be set without being root."""
    if not monitor_only and os.geteuid() != 0:
        raise NotPermitted(
            "setting GPU power limits needs root (CAP_SYS_ADMIN): run the agent as root, or with --monitor-only"
        )
    site = read_site_config(config_path, only=TABLES)
    config = site.table(NodeAgentConfig)
    clock = SystemClock()
    store = _store(site, config, node_name)
    inventory = NvmlInventory()
    agent = NodeAgent(
        config,
        node_name=node_name,
        inventory=inventory,
        book=AgentBook(FileJournal(of_node(config.journal, node_name)), boot_id=read_boot_id()),
        presence=ProcJobPresence(node_name, slurm_conf=os.environ.get("SLURM_CONF", "")),
        clock=clock,
        store=store,
        monitor_only=monitor_only,
        cpu_counters=Rapl(clock=clock),
    )
    server = LocalServer(
        of_node(config.socket, node_name),
        LocalOps(agent, clock=clock).answer,
        clock=clock,
        timeout_s=config.client_timeout_s,
        requests_per_s=config.requests_per_s,
    )
    link = _link(config, clock, server) if config.controller_url else None
    return AgentProcess(
        AgentLoop(agent, server=server, clock=clock, link=link, metrics=_metrics(config, clock)), store, inventory
    )


def node_name_of(given: str | None, environ: Mapping[str, str]) -> str:
    """Slurm's name of this node: given, or from slurmd's environment, or the short host name.

    Raise ConfigError for a name that could lead a path astray.
    """
    name = given or environ.get("SLURMD_NODENAME") or os.uname().nodename.partition(".")[0]
    if not name or name.startswith(".") or not all(letter.isalnum() or letter in "-_." for letter in name):
        raise ConfigError(f"node = {name!a}: must be a node's name")
    return name


def of_node(path: Path, node_name: str) -> Path:
    return Path(str(path).replace("%n", node_name))


def _store(site: SiteConfig, config: NodeAgentConfig, node_name: str) -> TelemetryStore | None:
    """None where the site keeps no telemetry (no [store] table)."""
    if "store" not in site.given:
        return None
    spool = of_node(config.spool, node_name) if config.spool is not None else None
    return open_store(site.table(StoreConfig), spool=spool)


def _metrics(config: NodeAgentConfig, clock: SystemClock) -> MetricsListener | None:
    if not config.metrics_port:
        return None
    max_age_s = max(10.0, 3 * config.sample_period_s)
    return MetricsListener(config.metrics_host, config.metrics_port, max_age_s=max_age_s, now_s=clock.now_s)


def _link(config: NodeAgentConfig, clock: SystemClock, server: LocalServer) -> LinkWorker:
    from slurm_power.adapters.agent_link_http import HttpAgentLink  # an agent on its own does without HTTP
    from slurm_power.adapters.sealed_http import SealedClient

    client = SealedClient(
        config.controller_url,
        credentials=MungeCredentials(socket=config.munge_socket, ttl_s=config.munge_ttl_s),
        allowed_uids=config.controller_uids,
        timeout_s=config.link_timeout_s,
    )
    return LinkWorker(HttpAgentLink(client), clock=clock, on_lease=server.wake)
