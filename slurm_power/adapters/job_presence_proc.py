"""Which jobs have processes on this node, read from /proc.

Tried on Slurm 22.05: the step daemon sets its title to `slurmstepd: [123.batch]`, and tasks carry SLURM_JOB_ID and
SLURMD_NODENAME in their environment. A task that wipes its environment is still covered by its step daemon.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from slurm_power.errors import Unavailable
from slurm_power.ports.job_presence import Evidence

_STEP_TITLE = re.compile(rb"slurmstepd: \[([0-9]{1,10})\.")
_MAX_ENVIRON_BYTES = 1024 * 1024


class ProcJobPresence:
    """`slurm_uids`: who may run step daemons (SlurmdUser). `slurm_conf`: the cluster's SLURM_CONF; a process that
    carries another one belongs to another cluster on this machine (job numbers repeat between clusters)."""

    def __init__(
        self,
        node_name: str,
        *,
        proc: Path = Path("/proc"),
        slurm_uids: frozenset[int] = frozenset({0}),
        slurm_conf: str = "",
    ) -> None:
        self._node = node_name.encode()
        self._proc = proc
        self._slurm_uids = slurm_uids
        self._slurm_conf = slurm_conf.encode()

    def seen(self, owners: Mapping[int, int]) -> Mapping[int, Evidence]:
        found: dict[int, Evidence] = {}
        uids = set(owners.values())
        try:
            processes = [entry for entry in self._proc.iterdir() if entry.name.isdigit()]
        except OSError as cause:
            raise Unavailable(f"{self._proc}: cannot list processes: {cause}") from cause
        for process in processes:
            uid = _owner(process)
            if uid in self._slurm_uids and (job_id := self._step_job(process)) in owners:
                found[job_id] = Evidence.STEP
            if uid in uids and (job_id := self._task_job(process)) in owners and owners[job_id] == uid:
                found.setdefault(job_id, Evidence.PROCESS)
        return found

    def _step_job(self, process: Path) -> int:
        title = _STEP_TITLE.match(_content(process / "cmdline", 256))
        if title is None:
            return 0
        # 22.05's step daemon does not name its node: with several slurmd on one machine it counts for each of them.
        variables = _variables(_content(process / "environ", _MAX_ENVIRON_BYTES))
        return int(title.group(1)) if self._here(variables, node=self._node) else 0

    def _task_job(self, process: Path) -> int:
        variables = _variables(_content(process / "environ", _MAX_ENVIRON_BYTES))
        job_id = variables.get(b"SLURM_JOB_ID", b"")
        return int(job_id) if self._here(variables, node=b"") and re.fullmatch(rb"[0-9]{1,10}", job_id) else 0

    def _here(self, variables: Mapping[bytes, bytes], *, node: bytes) -> bool:
        same_node = variables.get(b"SLURMD_NODENAME", node) == self._node
        return same_node and (
            not self._slurm_conf or variables.get(b"SLURM_CONF", self._slurm_conf) == self._slurm_conf
        )


def _owner(process: Path) -> int | None:
    try:
        return process.stat().st_uid
    except OSError:  # it ended while we looked
        return None


def _content(file: Path, limit: int) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(limit)
    except OSError:  # it ended while we looked
        return b""


def _variables(environ: bytes) -> dict[bytes, bytes]:
    pairs = (entry.partition(b"=") for entry in environ.split(b"\0"))
    return {name: value for name, _, value in pairs}
