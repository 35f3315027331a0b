"""SlurmClient through pyslurm's object API (25.11).

pyslurm is built against one Slurm release and loads its library, so both must match the running slurmctld; it is
imported only when this adapter is chosen. libslurm has no deadline of its own: MessageTimeout of slurm.conf holds.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from slurm_power.adapters.run_command import run_command
from slurm_power.adapters.slurm_command_parse import job_state, node_is_up
from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.adapters.slurm_text import (
    checked_comment,
    checked_name,
    expand_hosts,
    licenses_text,
    parse_licenses,
    release_of,
)
from slurm_power.errors import ConfigError, DeviceRefused, Unavailable
from slurm_power.relocation.jobs import Job, JobState, LicensePool, LicenseReservation, Node

_ADVICE = (
    'install pyslurm of the same release as Slurm (25.11 is the one this adapter knows), or set adapter = "command"'
)
_GONE = ("reservation is invalid", "doesn't exist")


class PyslurmClient:
    def __init__(
        self,
        config: SlurmConfig,
        *,
        load: Callable[[], Any] | None = None,
        running_version: Callable[[], str] | None = None,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """Raise ConfigError when pyslurm is missing, does not match the running Slurm, or cannot tell GPUs."""
        if config.slurm_conf is not None:
            os.environ["SLURM_CONF"] = str(config.slurm_conf)  # libslurm reads it when pyslurm is imported
        self._config = config
        self._wall_s = wall_s
        self._pyslurm = _loaded(load or _import_pyslurm, running_version or _running_version)
        self._require_tracked_gpus()

    def version(self) -> str:
        with self._translated():
            return str(self._pyslurm.slurmctld.Config.load().version)

    def jobs(self) -> Sequence[Job]:
        with self._translated():
            return [_job(job) for job in self._pyslurm.Jobs.load(preload_passwd_info=True).values()]

    def nodes(self) -> Sequence[Node]:
        with self._translated():
            return [_node(node) for node in self._pyslurm.Nodes.load().values()]

    def license_pools(self) -> Mapping[str, LicensePool]:
        """pyslurm shows no use of licences; it is summed over the jobs that hold some."""
        with self._translated():
            totals = self._pyslurm.slurmctld.Config.load().licenses
        used: dict[str, int] = {}
        for job in self.jobs():
            if job.state is JobState.RUNNING or (job.state is JobState.SUSPENDED):
                for name, count in job.licenses.items():
                    used[name] = used.get(name, 0) + count
        return {name: LicensePool(name, total=int(total), used=used.get(name, 0)) for name, total in totals.items()}

    def license_reservations(self) -> Sequence[LicenseReservation]:
        with self._translated():
            loaded = self._pyslurm.Reservations.load().values()
            return [_reservation(reservation) for reservation in loaded if reservation.licenses]

    def create_reservation(self, reservation: LicenseReservation) -> None:
        flags = self._pyslurm.ReservationFlags
        with self._translated():
            self._pyslurm.Reservation(
                name=checked_name(reservation.name),
                start_time=round(reservation.start_wall_s),
                end_time=round(reservation.end_wall_s),
                licenses=_license_words(reservation.licenses),
                users=["root"],
                node_count=0,
                partition=self._config.partition,
                flags=flags.ANY_NODES | flags.IGNORE_RUNNING_JOBS,
            ).create()

    def update_reservation(self, reservation: LicenseReservation) -> None:
        with self._translated():
            present = self._pyslurm.Reservation.load(checked_name(reservation.name))
            # The start of a reservation that has begun is past changing.
            if not (present.is_active and reservation.start_wall_s <= self._wall_s()):
                present.start_time = round(reservation.start_wall_s)
            present.end_time = round(reservation.end_wall_s)
            present.licenses = _license_words(reservation.licenses)
            present.modify()

    def delete_reservation(self, name: str) -> None:
        try:
            with self._translated():
                self._pyslurm.Reservation(checked_name(name)).delete()
        except DeviceRefused as refusal:
            if not any(words in str(refusal) for words in _GONE):
                raise

    def update_job(
        self,
        job_id: int,
        *,
        begin_wall_s: float | None = None,
        licenses: Mapping[str, int] | None = None,
        admin_comment: str | None = None,
    ) -> None:
        changes: dict[str, object] = {}
        if begin_wall_s is not None:
            changes["begin_time"] = round(max(begin_wall_s, self._wall_s()))
        if licenses is not None:
            changes["licenses"] = _license_words(licenses)
        if admin_comment is not None:
            changes["admin_comment"] = checked_comment(admin_comment)
        if changes:
            with self._translated():
                self._pyslurm.Job(job_id).modify(self._pyslurm.JobSubmitDescription(**changes))

    def requeue(self, job_id: int) -> None:
        with self._translated():
            self._pyslurm.Job(job_id).requeue()

    def cancel(self, job_id: int) -> None:
        with self._translated():
            self._pyslurm.Job(job_id).cancel()

    def _require_tracked_gpus(self) -> None:
        with self._translated():
            tracked = self._pyslurm.slurmctld.Config.load().accounting_storage_tres or []
        if "gres/gpu" not in tracked:
            raise ConfigError(
                "adapter = pyslurm: it sees the GPUs of waiting jobs only with AccountingStorageTRES=gres/gpu; "
                'add that to slurm.conf, or set adapter = "command"'
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._pyslurm.RPCError as error:
            if _is_refusal(error.errno):
                raise DeviceRefused(f"Slurm: {error}") from error
            raise Unavailable(f"Slurm: {error}") from error


def _loaded(load: Callable[[], Any], running_version: Callable[[], str]) -> Any:
    running = release_of(running_version())
    slurm = f"Slurm is {running[0]}.{running[1]:02d}"
    try:
        module = load()
    except ImportError as cause:
        raise ConfigError(
            f"adapter = pyslurm: {_installed()} cannot be loaded ({cause}), and {slurm}: {_ADVICE}"
        ) from cause
    if release_of(module.__version__) != running:
        raise ConfigError(f"adapter = pyslurm: pyslurm is {module.__version__}, but {slurm}: {_ADVICE}")
    return module


def _import_pyslurm() -> Any:
    return importlib.import_module("pyslurm")


def _installed() -> str:
    try:
        return f"pyslurm {importlib.metadata.version('pyslurm')}"
    except importlib.metadata.PackageNotFoundError:
        return "pyslurm (not installed)"


def _running_version() -> str:
    return run_command(["scontrol", "--version"], timeout_s=10.0, env=os.environ).output


def _is_refusal(errno: int) -> bool:
    """slurm_errno.h: 2000-4999 is slurmctld's or slurmd's "no"; below 2000 and from 5000 on the line is at fault.
    pyslurm's own refusals carry no number."""
    return errno < 0 or 2000 <= errno < 5000


def _job(job: Any) -> Job:
    words = [str(job.state).upper()]
    state = job_state(words)
    submit_wall_s = float(job.submit_time or 0)
    pending = state is JobState.PENDING
    deferred = pending and job.eligible_time is not None and job.eligible_time > submit_wall_s
    return Job(
        job_id=int(job.id),
        user_name=str(job.user_name or ""),
        uid=int(job.user_id),
        name=str(job.name or ""),
        partition=str(job.partition or ""),
        state=state,
        state_reason=str(job.state_reason or "None"),
        gpus=_gpus(job),
        node_names=expand_hosts(str(job.allocated_nodes or "")),
        submit_wall_s=submit_wall_s,
        begin_wall_s=float(job.eligible_time) if deferred else None,
        start_wall_s=None if pending or job.start_time is None else float(job.start_time),
        time_limit_s=None if job.time_limit is None else job.time_limit * 60.0,
        licenses=parse_licenses(",".join(job.licenses or [])),
        batch=bool(job.is_batch_job),
        requeueable=bool(job.is_batch_job and job.is_requeueable),
        admin_comment=str(job.admin_comment or ""),
        raw_state=words[0],
        node_count=int(job.num_nodes or 1),
        end_wall_s=float(job.end_time) if state is JobState.OTHER and job.end_time else None,
        account=str(job.account or ""),
    )


def _gpus(job: Any) -> int:
    """Of a job with nodes what it holds, else what it asks for; both follow from the tracked resource gres/gpu."""
    counts = {str(name): int(gpu.count) for name, gpu in job.gpus.items()}
    return counts.get("gpu", 0) or sum(counts.values())


def _node(node: Any) -> Node:
    states = str(node.state).upper().split("+")
    gres = node.configured_gres or {}
    gpus = sum(int(count) for name, count in gres.items() if str(name).split(":")[0] == "gpu")
    return Node(node_name=str(node.name), gpus=gpus, up=node_is_up(states), state="+".join(states))


def _reservation(reservation: Any) -> LicenseReservation:
    return LicenseReservation(
        name=str(reservation.name),
        start_wall_s=float(reservation.start_time or 0),
        end_wall_s=float(reservation.end_time or 0),
        licenses=parse_licenses(",".join(reservation.licenses)),
    )


def _license_words(licenses: Mapping[str, int]) -> list[str]:
    if not licenses:
        raise DeviceRefused("pyslurm cannot take away all licences; give each a count of 0")
    return licenses_text(licenses).split(",")
