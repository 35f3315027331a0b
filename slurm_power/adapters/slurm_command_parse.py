"""Read what squeue, sinfo and scontrol print, of 22.05 (plain JSON numbers) and of 23.02+ (number objects). Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from slurm_power.adapters.slurm_text import detail_gpu_count, expand_hosts, gpu_count, parse_licenses
from slurm_power.errors import Unavailable
from slurm_power.relocation.jobs import Job, JobState, LicensePool, LicenseReservation, Node

_NO_VALUE = 0xFFFFFFFE  # NO_VAL of slurm.h
_INFINITE = 0xFFFFFFFF  # INFINITE of slurm.h

_STATES = {
    "PENDING": JobState.PENDING,
    "REQUEUE_HOLD": JobState.PENDING,
    "RESV_DEL_HOLD": JobState.PENDING,
    "RUNNING": JobState.RUNNING,
    "CONFIGURING": JobState.RUNNING,  # it has its nodes and its licences
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "SUSPENDED": JobState.SUSPENDED,
    "STOPPED": JobState.SUSPENDED,
}
_NOT_OURS = {"COMPLETING", "STAGE_OUT"}
"""With one of these the job is on its way out, whatever else its state says."""

_USABLE_NODE_STATES = {"IDLE", "MIXED", "ALLOCATED", "COMPLETING", "PLANNED", "RESERVED"}
_HARMLESS_NODE_FLAGS = {"PLANNED", "COMPLETING", "RESERVED", "CLOUD", "DYNAMIC_NORM", "POWERED_UP"}


def parse_jobs(text: str) -> list[Job]:
    return [parse_job(entry) for entry in _entries(text, "jobs")]


def parse_nodes(text: str) -> list[Node]:
    return [parse_node(entry) for entry in _entries(text, "nodes")]


def parse_job(entry: Mapping[str, Any]) -> Job:
    """One job of `squeue --json`; of a pending array it stands for every task that still waits.
    Raise Unavailable naming the job when a value is not what it should be."""
    try:
        return _job(entry)
    except (KeyError, TypeError, ValueError) as cause:
        raise Unavailable(f"unreadable job {entry.get('job_id')!r}: {cause!r}") from cause


def parse_node(entry: Mapping[str, Any]) -> Node:
    try:
        states = _words(entry["state"]) + _words(entry.get("state_flags", []))
        return Node(
            node_name=str(entry["name"]),
            gpus=gpu_count(str(entry.get("gres") or "")),
            up=node_is_up(states),
            state="+".join(states),
        )
    except (KeyError, TypeError, ValueError) as cause:
        raise Unavailable(f"unreadable node {entry.get('name')!r}: {cause!r}") from cause


def node_is_up(states: Sequence[str]) -> bool:
    """Can start jobs: the base state is usable and every flag beside it is harmless."""
    return states[0] in _USABLE_NODE_STATES and set(states[1:]) <= _HARMLESS_NODE_FLAGS


def job_state(words: Sequence[str]) -> JobState:
    if _NOT_OURS & set(words):
        return JobState.OTHER
    return next((_STATES[word] for word in words if word in _STATES), JobState.OTHER)


def array_name(entry: Mapping[str, Any]) -> str:
    """How to name exactly this record in a request. A bare number means every task of an array."""
    array_id = number(entry.get("array_job_id"))
    if not array_id:
        return str(entry["job_id"])
    waiting = str(entry.get("array_task_string") or "").partition("%")[0]
    if re.fullmatch(r"[0-9,:-]+", waiting):
        return f"{array_id:.0f}_[{waiting}]"
    task_id = number(entry.get("array_task_id"))
    return str(entry["job_id"]) if task_id is None or waiting else f"{array_id:.0f}_{task_id:.0f}"


def parse_array_names(text: str) -> dict[int, str]:
    return {int(entry["job_id"]): array_name(entry) for entry in _entries(text, "jobs")}


def number(value: object) -> float | None:
    """A number in any of Slurm's spellings; None: not set, or without limit. Raise ValueError for anything else."""
    if isinstance(value, Mapping):
        if value["infinite"] or not value["set"]:
            return None
        value = value["number"]
    if value is None or value in (_NO_VALUE, _INFINITE):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"not a number: {value!r}")
    return float(value)


def parse_license_pools(text: str) -> dict[str, LicensePool]:
    """`scontrol -o show licenses`."""
    pools = {}
    for line in text.splitlines():
        values = _one_line(line)
        if "LicenseName" in values:
            pools[values["LicenseName"]] = _pool(values)
    return pools


def parse_license_reservations(text: str) -> list[LicenseReservation]:
    """`scontrol -o show reservation` with SLURM_TIME_FORMAT=%s; those without licences are left out."""
    found = []
    for line in text.splitlines():
        values = _one_line(line)
        if values.get("Licenses", "(null)") not in ("", "(null)") and "ReservationName" in values:
            found.append(_reservation(values))
    return found


def parse_version(text: str) -> str:
    """`scontrol show config`: the version of slurmctld, not of the command."""
    match = re.search(r"^SLURM_VERSION\s*=\s*(\S+)", text, re.MULTILINE)
    if match is None:
        raise Unavailable("scontrol show config names no SLURM_VERSION")
    return match[1]


def _job(entry: Mapping[str, Any]) -> Job:
    words = _words(entry["job_state"])
    state = job_state(words)
    submit_wall_s = _required(entry, "submit_time")
    eligible_wall_s = number(entry.get("eligible_time")) or None
    deferred = state is JobState.PENDING and eligible_wall_s is not None and eligible_wall_s > submit_wall_s
    limit_minutes = number(entry.get("time_limit"))
    return Job(
        job_id=int(entry["job_id"]),
        user_name=str(entry.get("user_name") or ""),
        uid=int(entry["user_id"]),
        name=str(entry.get("name") or ""),
        partition=str(entry.get("partition") or ""),
        state=state,
        state_reason=str(entry.get("state_reason") or "None"),
        gpus=job_gpus(entry),
        node_names=expand_hosts(str(entry.get("nodes") or "")),
        submit_wall_s=submit_wall_s,
        begin_wall_s=eligible_wall_s if deferred else None,
        start_wall_s=None if state is JobState.PENDING else (number(entry.get("start_time")) or None),
        time_limit_s=None if limit_minutes is None else limit_minutes * 60,
        licenses=parse_licenses(str(entry.get("licenses") or "")),
        batch=_flag(entry, "batch_flag"),
        requeueable=_flag(entry, "batch_flag") and _flag(entry, "requeue"),
        admin_comment=str(entry.get("admin_comment") or ""),
        raw_state="+".join(words),
        node_count=int(number(entry.get("node_count")) or 1),
        # Before its end this is when the time limit will be over.
        end_wall_s=(number(entry.get("end_time")) or None) if state is JobState.OTHER else None,
        account=str(entry.get("account") or ""),
    )


def job_gpus(entry: Mapping[str, Any]) -> int:
    """GPUs of one job: those it holds, else those it asks for in whatever way it asked."""
    held = detail_gpu_count(entry.get("gres_detail") or [])
    if held:
        return held
    tracked = gpu_count(str(entry.get("tres_req_str") or ""))
    if tracked:
        return tracked
    nodes = int(number(entry.get("node_count")) or 1)
    sockets = int(number(entry.get("sockets_per_node")) or 1)
    factors = {
        "tres_per_job": 1,
        "tres_per_node": nodes,
        "tres_per_socket": nodes * sockets,
        "tres_per_task": int(number(entry.get("tasks")) or 1),
    }
    return max(gpu_count(str(entry.get(key) or "")) * factor for key, factor in factors.items())


def _entries(text: str, key: str) -> list[Mapping[str, Any]]:
    try:
        answer = json.loads(text)
        entries = answer[key]
    except (ValueError, KeyError, TypeError) as cause:
        raise Unavailable(f"unreadable answer of Slurm, no list of {key}: {text[:80]!r}") from cause
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Unavailable(f"unreadable answer of Slurm: {key} is not a list of objects")
    return entries


def _words(value: object) -> list[str]:
    """States: one word in 22.05, a list from 23.02/23.11 on."""
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"not a state: {value!r}")
    return [word.upper() for word in words]


def _required(entry: Mapping[str, Any], key: str) -> float:
    value = number(entry[key])
    if value is None:
        raise ValueError(f"{key} is not set")
    return value


def _flag(entry: Mapping[str, Any], key: str) -> bool:
    value = entry.get(key, False)
    if isinstance(value, bool):
        return value
    return bool(number(value))


def _one_line(line: str) -> dict[str, str]:
    """ "A=1 B=two C=" -> its pairs. The first of a name counts: free text, such as a comment, comes last."""
    values: dict[str, str] = {}
    for word in line.split():
        key, equals, value = word.partition("=")
        if equals:
            values.setdefault(key, value)
    return values


def _pool(values: Mapping[str, str]) -> LicensePool:
    try:
        return LicensePool(values["LicenseName"], total=int(values["Total"]), used=int(values["Used"]))
    except (KeyError, ValueError) as cause:
        raise Unavailable(f"unreadable licence {dict(values)}") from cause


def _reservation(values: Mapping[str, str]) -> LicenseReservation:
    try:
        return LicenseReservation(
            name=values["ReservationName"],
            start_wall_s=float(values["StartTime"]),
            end_wall_s=float(values["EndTime"]),
            licenses=parse_licenses(values["Licenses"]),
        )
    except (KeyError, ValueError) as cause:
        raise Unavailable(f"unreadable reservation {values.get('ReservationName')!r}: {cause!r}") from cause
