"""The text of a development cluster's Slurm configuration. Pure: no file is read or written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slurm_power.testing.cluster.layout import ClusterLayout
from slurm_power.testing.cluster.settings import (
    GPU_MAX_CLOCK_MHZ,
    GPU_MAX_WATTS,
    GPU_MIN_CLOCK_MHZ,
    GPU_MIN_WATTS,
    ClusterSettings,
)

PARTITION = "main"

REQUEUE_EXIT_CODE = 75
"""sysexits.h, EX_TEMPFAIL: what a job says that has saved its work and wants to be started again."""

_CREDENTIAL_LIFE_S = 10

# Short timeouts: a requeue or a dead slurmd must show within half a minute, not after five.
# bf_resolution: a compressed day has no minutes to round to. bf_yield: a small queue needs no rest.
_SCHEDULER_PARAMETERS = (
    "bf_interval=1,bf_resolution=1,bf_continue,bf_yield_interval=1000000,sched_interval=2,sched_min_interval=100000,"
    "batch_sched_delay=0,nohold_on_prolog_fail,requeue_setup_env_fail"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfInputs:
    layout: ClusterLayout
    settings: ClusterSettings
    hostname: str
    ports: Sequence[int]  # slurmctld's, then one per node
    job_submit_lua: bool
    spank_library: Path | None


def slurm_conf(inputs: ConfInputs) -> str:
    layout, settings, host = inputs.layout, inputs.settings, inputs.hostname
    watts = settings.pool_watts()
    lines = [
        "# Written by `slurm-power cluster up`; changes are overwritten.",
        "ClusterName=slurm_power_dev",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={inputs.ports[0]}",
        "SlurmUser=root",
        "SlurmdUser=root",
        "AuthType=auth/munge",
        "CredType=cred/munge",
        # A requeued job waits until its old credential has expired: slurm.conf(5), AuthInfo.
        f"AuthInfo=socket={layout.munge_socket},cred_expire={_CREDENTIAL_LIFE_S}",
        f"StateSaveLocation={layout.state}",
        f"SlurmdSpoolDir={layout.spool}/%n",
        f"SlurmctldPidFile={layout.state}/slurmctld.pid",
        f"SlurmdPidFile={layout.spool}/%n.pid",
        f"SlurmctldLogFile={layout.log}/slurmctld.log",
        f"SlurmdLogFile={layout.log}/slurmd-%n.log",
        "ProctrackType=proctrack/linuxproc",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        "DefMemPerCPU=100",
        "SchedulerType=sched/backfill",
        f"SchedulerParameters={_SCHEDULER_PARAMETERS}",
        "PriorityType=priority/basic",
        "MpiDefault=none",
        "MailProg=/bin/true",
        "JobRequeue=1",
        f"RequeueExit={REQUEUE_EXIT_CODE}",
        "KillWait=5",
        "MinJobAge=600",
        "SlurmctldTimeout=15",
        "SlurmdTimeout=15",
        "InactiveLimit=0",
        "ReturnToService=2",
        "PrologFlags=Alloc",
        f"TaskProlog={layout.etc}/task_prolog",
        f"PlugStackConfig={layout.etc}/plugstack.conf",
        "JobCompType=jobcomp/filetxt",
        f"JobCompLoc={layout.log}/jobcomp.txt",
        f"Licenses=watts:{watts},firm_watts:{watts}",
        "SlurmdParameters=config_overrides",
        *(["JobSubmitPlugins=lua"] if inputs.job_submit_lua else []),
        *(["GresTypes=gpu"] if settings.gpus_per_node else []),
        *_node_lines(inputs),
        f"PartitionName={PARTITION} Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
    ]
    return "\n".join(lines) + "\n"


def gres_conf(layout: ClusterLayout, settings: ClusterSettings) -> str:
    if not settings.gpus_per_node:
        return ""
    return f"NodeName={_node_range(settings)} Name=gpu File={layout.devices}/nvidia[0-{settings.gpus_per_node - 1}]\n"


def plugstack_conf(layout: ClusterLayout, spank_library: Path | None) -> str:
    """`optional`: a broken plugin must never break a job."""
    if spank_library is None:
        return "# The SPANK plugin is not built.\n"
    return (
        f"optional {spank_library} agent_socket={layout.directory}/nodes/%n/agent.sock "
        f"min_cap={GPU_MIN_WATTS} max_cap={GPU_MAX_WATTS} "
        f"min_clock={GPU_MIN_CLOCK_MHZ} max_clock={GPU_MAX_CLOCK_MHZ}\n"
    )


def site_lua(settings: ClusterSettings) -> str:
    return (
        "-- Written by `slurm-power cluster up`.\n"
        "return {\n"
        f"  node_base_watts = {settings.node_base_watts},\n"
        f"  gpu_max_watts = {GPU_MAX_WATTS},\n"
        f"  gpu_min_watts = {GPU_MIN_WATTS},\n"
        f"  gpu_max_mhz = {GPU_MAX_CLOCK_MHZ},\n"
        f"  gpu_min_mhz = {GPU_MIN_CLOCK_MHZ},\n"
        f"  max_watts = {settings.pool_watts()},\n"
        f"  gpus_per_node = {settings.gpus_per_node},\n"
        '  default_class = "flexible",\n'
        "}\n"
    )


def task_prolog(layout: ClusterLayout, *, nvml_directory: Path, programs: Path, mark: str) -> str:
    """What it prints becomes the environment of every task of a job, the batch script included."""
    nodes = f"{layout.directory}/nodes"
    return (
        "#!/bin/sh\n"
        f'echo "export LD_LIBRARY_PATH={nvml_directory}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"\n'
        f'echo "export SLURM_POWER_EMULATED_NODE={nodes}/$SLURMD_NODENAME/gpus.state"\n'
        f'echo "export SLURM_POWER_AGENT_SOCKET={nodes}/$SLURMD_NODENAME/agent.sock"\n'
        f'echo "export PATH={programs}:$PATH"\n'
        f'echo "export {mark}={layout.run}/slurmd-$SLURMD_NODENAME.pid"\n'
    )


def _node_lines(inputs: ConfInputs) -> list[str]:
    settings = inputs.settings
    first, last = inputs.ports[1], inputs.ports[settings.node_count]
    ports = f"[{first}-{last}]" if settings.node_count > 1 else str(first)
    gres = f" Gres=gpu:{settings.gpus_per_node}" if settings.gpus_per_node else ""
    return [
        f"NodeName={_node_range(settings)} NodeHostname={inputs.hostname} NodeAddr=127.0.0.1 Port={ports} "
        f"CPUs={settings.cpus_per_node} RealMemory={settings.cpus_per_node * 1000}{gres} State=UNKNOWN"
    ]


def _node_range(settings: ClusterSettings) -> str:
    return f"n[1-{settings.node_count}]" if settings.node_count > 1 else "n1"
