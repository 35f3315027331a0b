"""Bring a development cluster up and down; safe to repeat, also after a crash."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from slurm_power.errors import ConfigError
from slurm_power.testing.cluster import daemons
from slurm_power.testing.cluster.build_files import write_files
from slurm_power.testing.cluster.commands import SlurmCommands
from slurm_power.testing.cluster.emulated_gpus import make_emulated_gpus
from slurm_power.testing.cluster.layout import ClusterLayout
from slurm_power.testing.cluster.ports import all_free, free_ports, port_lock
from slurm_power.testing.cluster.record import ClusterRecord, read_record, write_record
from slurm_power.testing.cluster.requirements import check_machine
from slurm_power.testing.cluster.settings import ClusterSettings
from slurm_power.testing.cluster.status import ClusterStatus, read_status
from slurm_power.testing.processes import Supervisor

_IDLE = ("idle", "mixed", "allocated", "completing")
_READY_TIMEOUT_S = 60.0
_STOP_GRACE_S = 10.0


class DevCluster(SlurmCommands):
    """`services` is open to others: what is started through it (agents, controller, site) `down` stops too."""

    def __init__(self, directory: Path, settings: ClusterSettings | None = None) -> None:
        super().__init__(ClusterLayout(directory.absolute()))
        self.services = Supervisor(self.layout.run)
        self._record_file = self.layout.run / "cluster.json"
        self._wanted = settings

    @property
    def directory(self) -> Path:
        return self.layout.directory

    @property
    def settings(self) -> ClusterSettings:
        """As asked for; else as the directory was last brought up with; else the defaults."""
        if self._wanted is not None:
            return self._wanted
        record = read_record(self._record_file)
        return record.settings if record is not None else ClusterSettings()

    def node_names(self) -> list[str]:
        return self.settings.node_names()

    def node_directory(self, node_name: str) -> Path:
        return self.layout.node(node_name)

    def gpu_state(self, node_name: str) -> Path:
        return self.layout.gpu_state(node_name)

    def agent_socket(self, node_name: str) -> Path:
        return self.layout.agent_socket(node_name)

    def up(self, *, fresh: bool = False) -> bool:
        """Start what does not run and wait until every node can take jobs; False if all ran already.
        `fresh` forgets the jobs and GPU states of an earlier time (only of a cluster that is down).
        Raise NotPermitted without root, ConfigError when something must be installed or changed."""
        check_machine()
        running = self._running_daemons()
        if set(self._daemon_names()) <= running:
            self._refuse_other_settings()
            return False
        if running:
            self._refuse_other_settings()
        self.layout.create(self.node_names())
        with port_lock():
            self._prepare(fresh=fresh and not running, keep_ports=bool(running))
            self._start_daemons()
        self.wait_for_nodes(*_IDLE, timeout_s=_READY_TIMEOUT_S)
        return True

    def down(self) -> list[str]:
        """Stop everything that was started from this directory, the last first; return the names.
        Jobs that ran are requeued by the next `up`, unless that one is fresh."""
        return self.services.stop_all(grace_s=_STOP_GRACE_S)

    def status(self) -> ClusterStatus:
        return read_status(str(self.directory), self, self.services)

    def kill_node(self, node_name: str) -> None:
        """kill -9 of one slurmd; its jobs' processes live on, as in a real crash."""
        name = daemons.daemon_name(node_name)
        self.services.signal(name, signal.SIGKILL)
        self.services.wait_until_gone(name, timeout_s=5.0)

    def start_node(self, node_name: str) -> None:
        daemons.start_slurmd(self.layout, self.services, node_name)
        self.wait_for_nodes(*_IDLE, timeout_s=_READY_TIMEOUT_S, node_names=[node_name])

    def restart_nodes(self) -> None:
        """Restart every slurmd, as needed after a change of plugstack.conf; running jobs go on."""
        for node_name in self.node_names():
            self.kill_node(node_name)
        for node_name in self.node_names():
            self.start_node(node_name)

    def advice(self) -> list[str]:
        """Lines for a person: how to use the cluster, and what will not work here."""
        lines = [f"export SLURM_CONF={self.layout.slurm_conf}"]
        closed = self.layout.closed_parent()
        if closed is not None:
            lines.append(
                f"note: other users' jobs cannot reach {self.directory}, for {closed} is closed to them; "
                f"`chmod o+x {closed}` or another --dir helps"
            )
        return lines

    def _prepare(self, *, fresh: bool, keep_ports: bool) -> None:
        old = read_record(self._record_file)
        record = self._next_record(old, keep_ports=keep_ports)
        forget = fresh or (old is not None and old.settings != record.settings)
        if forget:
            self._forget_jobs()
        write_record(self._record_file, record)
        write_files(self.layout, record)
        make_emulated_gpus(self.layout, record.settings, fresh=forget)

    def _forget_jobs(self) -> None:
        """Job ids start again at 1, so what is kept by job id goes too."""
        for folder in (self.layout.state, self.layout.spool, self.layout.jobs):
            shutil.rmtree(folder, ignore_errors=True)
        (self.layout.log / "jobcomp.txt").unlink(missing_ok=True)
        self.layout.create(self.node_names())

    def _next_record(self, old: ClusterRecord | None, *, keep_ports: bool) -> ClusterRecord:
        """The ports of last time if they are still free, so that a recovered cluster finds its jobs' processes."""
        settings = self.settings
        if old is not None and len(old.ports) == settings.node_count + 1 and (keep_ports or all_free(old.ports)):
            return ClusterRecord(settings, old.ports)
        return ClusterRecord(settings, free_ports(settings.node_count + 1))

    def _start_daemons(self) -> None:
        daemons.start_munged(self.layout, self.services)
        daemons.start_slurmctld(self.layout, self.services)
        for node_name in self.node_names():
            daemons.start_slurmd(self.layout, self.services, node_name)

    def _daemon_names(self) -> list[str]:
        return ["munged", "slurmctld", *map(daemons.daemon_name, self.node_names())]

    def _running_daemons(self) -> set[str]:
        return {name for name in self.services.names() if self.services.is_running(name)}

    def _refuse_other_settings(self) -> None:
        record = read_record(self._record_file)
        if record is not None and self._wanted is not None and record.settings != self._wanted:
            raise ConfigError(
                f"{self.directory}: a cluster of {record.settings.node_count} nodes with "
                f"{record.settings.gpus_per_node} GPUs each runs there; take it down first"
            )
