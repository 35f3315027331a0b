"""A finished job's joules in Slurm's accounting: a real slurmdbd on a MariaDB of its own, both only for this file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from slurm_power.adapters.energy_write_back import EnergyWriteBack
from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.errors import DeviceRefused, Unavailable
from slurm_power.testing.cluster import DevCluster
from slurm_power.testing.cluster.daemons import start_slurmctld
from slurm_power.testing.cluster.fixtures import temporary_cluster
from slurm_power.testing.cluster.ports import free_ports
from slurm_power.testing.cluster.requirements import program
from slurm_power.testing.cluster.settings import ClusterSettings
from slurm_power.testing.influxdb_server import find_program
from slurm_power.testing.processes import wait_for

TIMEOUT_S = 60.0

pytestmark = pytest.mark.skipif(
    not all(map(find_program, ("slurmdbd", "mariadbd"))), reason="slurmdbd or mariadb-server is not installed"
)


@dataclass
class AccountedCluster:
    """A cluster of one node whose slurmctld is told of a slurmdbd after it first came up."""

    cluster: DevCluster

    def __post_init__(self) -> None:
        self.folder = self.cluster.directory / "accounting"
        self.folder.mkdir()
        self.cluster.up()
        self._start_mariadb()
        self._start_slurmdbd()
        layout, services = self.cluster.layout, self.cluster.services
        with layout.slurm_conf.open("a") as conf:
            conf.write(self._accounting_lines())
        self._run("sacctmgr", "--immediate", "add", "cluster", "slurm_power_dev")
        services.stop("slurmctld")
        start_slurmctld(layout, services)

    def finished_job(self) -> int:
        """As accounting knows it."""
        job_id = self.cluster.sbatch(script="true")
        self.cluster.wait_for_job(job_id, "COMPLETED")
        assert wait_for(lambda: "COMPLETED" in self.told(job_id, "State"), timeout_s=TIMEOUT_S, poll_s=0.5)
        return job_id

    def told(self, job_id: int, column: str) -> str:
        return self._run("sacct", "--noheader", "--parsable2", "-X", f"--jobs={job_id}", f"--format={column}").strip()

    def write_back(self) -> EnergyWriteBack:
        return EnergyWriteBack(SlurmConfig(slurm_conf=self.cluster.layout.slurm_conf))

    def _run(self, *argv: str) -> str:
        return self.cluster.run(*argv).stdout

    def _start_mariadb(self) -> None:
        data, self._socket = self.folder / "data", self.folder / "sql"
        self._run(
            "mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=root", "--skip-test-db",
            "--auth-root-authentication-method=socket",
        )  # fmt: skip
        (self._sql_port,) = free_ports(1)
        argv = [
            program("mariadbd"), "--no-defaults", f"--datadir={data}", f"--socket={self._socket}", "--user=root",
            "--bind-address=127.0.0.1", f"--port={self._sql_port}", "--innodb-buffer-pool-size=64M",
        ]  # fmt: skip
        self.cluster.services.start("mariadb", argv, log=self.folder / "mariadb.log")
        assert wait_for(lambda: self._sql("select 1"), timeout_s=TIMEOUT_S, poll_s=0.2)
        assert self._sql("create user slurm@127.0.0.1 identified by 'x'; grant all on slurm.* to slurm@127.0.0.1")

    def _sql(self, statement: str) -> bool:
        argv = ("mariadb", "--no-defaults", f"--socket={self._socket}", f"--execute={statement}")
        return self.cluster.run(*argv, check=False).returncode == 0

    def _start_slurmdbd(self) -> None:
        (self._port,) = free_ports(1)
        conf = self.folder / "slurmdbd.conf"
        conf.touch(mode=0o600)
        conf.write_text(
            f"AuthType=auth/munge\nAuthInfo=socket={self.cluster.layout.munge_socket}\n"
            f"DbdHost=localhost\nDbdAddr=127.0.0.1\nDbdPort={self._port}\nSlurmUser=root\n"
            f"LogFile={self.folder}/slurmdbd.log\nPidFile={self.folder}/slurmdbd.pid\n"
            f"StorageType=accounting_storage/mysql\nStorageHost=127.0.0.1\nStoragePort={self._sql_port}\n"
            "StorageUser=slurm\nStoragePass=x\nStorageLoc=slurm\n"
        )
        environment = {**self.cluster.environment(), "SLURM_CONF": str(conf)}
        log = self.folder / "slurmdbd.out"
        self.cluster.services.start("slurmdbd", [program("slurmdbd"), "-D"], log=log, env=environment)
        started = wait_for(lambda: "started" in log.read_text(), timeout_s=TIMEOUT_S, poll_s=0.2)
        assert started, log.read_text()

    def _accounting_lines(self) -> str:
        return (
            "AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
            f"AccountingStoragePort={self._port}\nAccountingStoragePass={self.cluster.layout.munge_socket}\n"
            "AccountingStoreFlags=job_comment\n"
        )


@pytest.fixture(scope="module")
def accounted() -> Iterator[AccountedCluster]:
    with temporary_cluster(ClusterSettings(node_count=1)) as cluster:
        yield AccountedCluster(cluster)


def test_the_joules_stand_beside_what_others_wrote_and_replace_older_ones(accounted: AccountedCluster) -> None:
    job_id = accounted.finished_job()
    present = accounted.told(job_id, "AdminComment")
    accounted.write_back().write(job_id, 12_345.6, to="auto")
    assert accounted.told(job_id, "AdminComment") == f"{present} slurm-power-energy:joules=12346".strip()
    accounted.write_back().write(job_id, 777.0, to="admin-comment")
    assert accounted.told(job_id, "AdminComment") == f"{present} slurm-power-energy:joules=777".strip()


def test_the_users_comment_can_be_had_too_and_a_dry_run_changes_nothing(accounted: AccountedCluster) -> None:
    job_id = accounted.finished_job()
    assert accounted.write_back().write(job_id, 5.0, to="comment", dry_run=True).startswith("Comment=")
    assert "joules" not in accounted.told(job_id, "Comment")
    accounted.write_back().write(job_id, 5.0, to="comment")
    assert accounted.told(job_id, "Comment") == "slurm-power-energy:joules=5"


def test_what_this_release_cannot_take_and_what_nobody_knows_is_said(accounted: AccountedCluster) -> None:
    job_id = accounted.finished_job()
    with pytest.raises(Unavailable, match="accounting does not know it yet"):
        accounted.write_back().write(999_999, 5.0, to="admin-comment")
    if "22.05" in accounted.cluster.run("sacctmgr", "--version").stdout:
        with pytest.raises(DeviceRefused, match=f"job {job_id}: sacctmgr"):
            accounted.write_back().write(job_id, 5.0, to="tres")


def test_a_dead_slurmdbd_is_said_to_be_away(accounted: AccountedCluster) -> None:
    job_id = accounted.finished_job()
    accounted.cluster.services.stop("slurmdbd")
    with pytest.raises(Unavailable, match="sacct"):
        accounted.write_back().write(job_id, 5.0, to="admin-comment")
