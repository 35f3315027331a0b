"""Write a cluster's configuration, key and device files into its directory."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import sys
from pathlib import Path

from slurm_power.errors import ConfigError
from slurm_power.testing.cluster.emulated_gpus import nvml_directory
from slurm_power.testing.cluster.layout import ClusterLayout, product_directory
from slurm_power.testing.cluster.record import ClusterRecord
from slurm_power.testing.cluster.settings import ClusterSettings
from slurm_power.testing.cluster.slurm_conf import (
    ConfInputs,
    gres_conf,
    plugstack_conf,
    site_lua,
    slurm_conf,
    task_prolog,
)
from slurm_power.testing.processes import MARK

_KEY_BYTES = 128


def write_files(layout: ClusterLayout, record: ClusterRecord) -> None:
    """What is there already is replaced, but for the munge key."""
    layout.create(record.settings.node_names())
    _write_munge_key(layout.munge / "munge.key")
    _make_devices(layout.devices, record.settings.gpus_per_node)
    spank_library = product_directory() / "build" / "spank" / "slurm_power.so"
    lua = _copy_job_submit(layout, record.settings)
    inputs = ConfInputs(
        layout=layout,
        settings=record.settings,
        hostname=socket.gethostname().split(".")[0],
        ports=record.ports,
        job_submit_lua=lua,
        spank_library=spank_library if spank_library.exists() else None,
    )
    layout.slurm_conf.write_text(slurm_conf(inputs))
    (layout.etc / "gres.conf").write_text(gres_conf(layout, record.settings))
    (layout.etc / "plugstack.conf").write_text(plugstack_conf(layout, inputs.spank_library))
    prolog = layout.etc / "task_prolog"
    prolog.write_text(
        task_prolog(layout, nvml_directory=nvml_directory(), programs=Path(sys.executable).parent, mark=MARK)
    )
    prolog.chmod(0o755)


def _write_munge_key(file: Path) -> None:
    if not file.exists():
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as key:
            key.write(os.urandom(_KEY_BYTES))


def _make_devices(directory: Path, count: int) -> None:
    """Device files for gres.conf, as /dev/nvidia<minor>; without the right to mknod, links to /dev/null."""
    for minor in range(count):
        device = directory / f"nvidia{minor}"
        if device.exists():
            continue
        try:
            os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            device.chmod(0o666)
        except PermissionError:
            device.symlink_to("/dev/null")


def _copy_job_submit(layout: ClusterLayout, settings: ClusterSettings) -> bool:
    """Put job_submit.lua beside slurm.conf, where slurmctld looks for it."""
    source = product_directory() / "etc" / "job_submit.lua"
    if not source.exists():
        return False
    try:
        shutil.copyfile(source, layout.etc / source.name)
    except OSError as cause:
        raise ConfigError(f"{source}: cannot be copied: {cause.strerror}") from cause
    (layout.etc / "slurm_power_site.lua").write_text(site_lua(settings))
    return True
