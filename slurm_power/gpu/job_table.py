"""The jobs that hold GPUs of this node, and how they come and go. Pure; also their journal records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from slurm_power.errors import DeviceRefused, NotPermitted
from slurm_power.gpu.allocation import Allocation
from slurm_power.gpu.borrowing import Record
from slurm_power.gpu.options import PowerOptions

JobTable = Mapping[int, Allocation]


def holder_of(jobs: JobTable, uuid: str) -> Allocation | None:
    return next((job for job in jobs.values() if uuid in job.uuids), None)


def conflicts(jobs: JobTable, new: Allocation) -> tuple[Allocation, ...]:
    """Other jobs that hold a GPU of `new`: their end was lost, or the GPU is shared."""
    return tuple(job for job in jobs.values() if job.job_id != new.job_id and set(job.uuids) & set(new.uuids))


def begun(jobs: JobTable, new: Allocation) -> dict[int, Allocation]:
    """`new` is in, everybody who held one of its GPUs is out. A repeat of the same start changes nothing."""
    known = jobs.get(new.job_id)
    if known is not None and (known.uid, known.uuids, known.options) == (new.uid, new.uuids, new.options):
        return dict(jobs)
    gone = {job.job_id for job in conflicts(jobs, new)}
    return {job_id: job for job_id, job in jobs.items() if job_id not in gone} | {new.job_id: new}


def ended(jobs: JobTable, job_ids: Iterable[int]) -> dict[int, Allocation]:
    gone = set(job_ids)
    return {job_id: job for job_id, job in jobs.items() if job_id not in gone}


def owned(jobs: JobTable, job_id: int, *, uid: int) -> Allocation:
    """The job, if `uid` owns it (or is root). Raise NotPermitted, with the same words for "not yours" and "unknown"."""
    job = jobs.get(job_id)
    if job is None or uid not in (0, job.uid):
        raise NotPermitted(f"job {job_id}: holds no GPU here or is not yours")
    return job


def lowered(job: Allocation, uuid: str, watts: float | None, *, min_watts: float, max_watts: float) -> Allocation:
    """The job with its own wish for one GPU changed. None withdraws the wish.

    Raise NotPermitted for a GPU of another job, DeviceRefused outside the allowed range or above what
    the job was submitted with: a running job may only lower.
    """
    if uuid not in job.uuids:
        raise NotPermitted(f"job {job.job_id}: that GPU is not allocated to it")
    wishes = {name: value for name, value in job.lowered_watts.items() if name != uuid}
    if watts is None:
        return replace(job, lowered_watts=wishes)
    if not min_watts <= watts <= max_watts:
        raise DeviceRefused(f"watts = {watts:g}: must be between {min_watts:g} and {max_watts:g}")
    submitted = job.options.gpu_cap_watts
    if submitted is not None and watts > submitted:
        raise DeviceRefused(f"watts = {watts:g}: may only lower the job's own cap of {submitted:g}")
    return replace(job, lowered_watts=wishes | {uuid: watts})


def slowed(job: Allocation, uuid: str, mhz: int | None, *, min_mhz: int, max_mhz: int) -> Allocation:
    """`lowered` for the SM clock."""
    if uuid not in job.uuids:
        raise NotPermitted(f"job {job.job_id}: that GPU is not allocated to it")
    wishes = {name: value for name, value in job.lowered_mhz.items() if name != uuid}
    if mhz is None:
        return replace(job, lowered_mhz=wishes)
    if not min_mhz <= mhz <= max_mhz:
        raise DeviceRefused(f"mhz = {mhz}: must be between {min_mhz} and {max_mhz}")
    submitted = job.options.gpu_clock_mhz
    if submitted is not None and mhz > submitted:
        raise DeviceRefused(f"mhz = {mhz}: may only lower the job's own clock of {submitted}")
    return replace(job, lowered_mhz=wishes | {uuid: mhz})


def job_records(job: Allocation, *, boot_id: str) -> list[Record]:
    options = job.options
    first: Record = {
        "kind": "job",
        "job_id": job.job_id,
        "uid": job.uid,
        "uuids": ",".join(job.uuids),
        "boot_id": boot_id,
        "gpu_cap_watts": options.gpu_cap_watts,
        "gpu_clock_mhz": options.gpu_clock_mhz,
        "power_class": options.power_class,
        "max_slowdown_fraction": options.max_slowdown_fraction,
        "max_delay_s": options.max_delay_s,
    }
    wishes: list[Record] = [
        {"kind": "wish", "job_id": job.job_id, "uuid": uuid, "watts": watts, "boot_id": boot_id}
        for uuid, watts in sorted(job.lowered_watts.items())
    ]
    clocks: list[Record] = [
        {"kind": "clock_wish", "job_id": job.job_id, "uuid": uuid, "mhz": mhz, "boot_id": boot_id}
        for uuid, mhz in sorted(job.lowered_mhz.items())
    ]
    return [first, *wishes, *clocks]


def read_jobs(records: Iterable[Record], *, boot_id: str) -> tuple[dict[int, Allocation], tuple[str, ...]]:
    """Jobs of this boot (no job survives a restart of the machine) and a line for every unreadable record."""
    jobs: dict[int, Allocation] = {}
    unreadable: list[str] = []
    for record in records:
        if record.get("boot_id") != boot_id:
            continue
        try:
            if record.get("kind") == "job":
                job = _job(record)
                jobs[job.job_id] = job
            elif record.get("kind") == "wish":
                known = jobs[_integer(record["job_id"])]
                wishes = {**known.lowered_watts, str(record["uuid"]): _float(record["watts"])}
                jobs[known.job_id] = replace(known, lowered_watts=wishes)
            elif record.get("kind") == "clock_wish":
                known = jobs[_integer(record["job_id"])]
                clocks = {**known.lowered_mhz, str(record["uuid"]): _integer(record["mhz"])}
                jobs[known.job_id] = replace(known, lowered_mhz=clocks)
        except (KeyError, TypeError, ValueError) as cause:
            unreadable.append(f"journal: unreadable job record ({cause!r})")
    return jobs, tuple(unreadable)


def _job(record: Record) -> Allocation:
    power_class = record["power_class"]
    return Allocation(
        job_id=_integer(record["job_id"]),
        uid=_integer(record["uid"]),
        uuids=tuple(uuid for uuid in str(record["uuids"]).split(",") if uuid),
        options=PowerOptions(
            gpu_cap_watts=_maybe_float(record["gpu_cap_watts"]),
            gpu_clock_mhz=None if record["gpu_clock_mhz"] is None else _integer(record["gpu_clock_mhz"]),
            power_class=None if power_class is None else str(power_class),
            max_slowdown_fraction=_maybe_float(record["max_slowdown_fraction"]),
            max_delay_s=_maybe_float(record["max_delay_s"]),
        ),
    )


def _integer(value: str | float | bool | None) -> int:
    if value is None:
        raise ValueError("a number is missing")
    return int(value)


def _float(value: str | float | bool | None) -> float:
    if value is None:
        raise ValueError("a number is missing")
    return float(value)


def _maybe_float(value: str | float | bool | None) -> float | None:
    return None if value is None else float(value)
