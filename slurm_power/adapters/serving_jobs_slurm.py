"""Serving jobs as Slurm batch jobs. Their name is their mark, so that they are found again after any crash."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slurm_power.adapters.run_command import CommandResult, Run, run_command
from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.errors import DeviceRefused, Unavailable
from slurm_power.ports.serving_jobs import Address, ServingJob

MARK = "slurm-power-pool"
FOLDER_VARIABLE = "SLURM_POWER_SERVE_DIR"
_SQUEUE_FORMAT = "%A|%T|%N|%L|%l|%j"
_LIVES = {"PENDING": False, "CONFIGURING": False, "RUNNING": True, "SUSPENDED": True}
"""State -> whether it runs. Completing jobs, and those that wait to be started again, are not counted on."""

_NO_ANSWER = re.compile(r"Unable to contact|timed out|Connection refused|Zero Bytes|communication", re.IGNORECASE)
_GONE = re.compile(r"Invalid job id|already completing or completed", re.IGNORECASE)
_SPAN = re.compile(r"(?:(?P<days>\d+)-)?(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+)")
"""squeue(1), %L and %l: [days-][hours:]minutes:seconds; UNLIMITED, NOT_SET and INVALID are no span."""

_MOST_ENDPOINT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingJobShape:
    """What every job is started with."""

    owner: str
    script: Path
    models: tuple[str, ...]  # folders, the first is served first
    served_model_name: str
    sbatch_options: tuple[str, ...]
    serve_options: tuple[str, ...]
    endpoints: Path
    environment: Mapping[str, str] = field(default_factory=dict)


class SlurmServingJobs:
    def __init__(self, shape: ServingJobShape, slurm: SlurmConfig, *, run: Run = run_command) -> None:
        self._shape, self._slurm, self._run = shape, slurm, run
        self._name = re.compile(rf"{MARK}\.{re.escape(shape.owner)}\.([A-Z]{{2}})\.([1-9][0-9]?)")

    def jobs(self) -> Sequence[ServingJob]:
        argv = ("squeue", "--noheader", f"--user={os.getuid()}", f"--format={_SQUEUE_FORMAT}")
        result = self._call(argv)
        if result.exit_code != 0:
            raise Unavailable(f"squeue: {result.words()}")
        return [job for line in result.output.splitlines() if (job := self._job(line)) is not None]

    def addresses(self) -> Sequence[Address]:
        """Files of jobs that were killed may lie there still; whoever asks knows which jobs live."""
        try:
            paths = sorted(self._shape.endpoints.glob("*.json"))
        except OSError as cause:
            raise Unavailable(f"{self._shape.endpoints}: {cause.strerror}") from cause
        return [address for path in paths if (address := _address(path)) is not None]

    def start(self, pool: str, *, gpus: int) -> int:
        shape = self._shape
        also = [word for model in shape.models[1:] for word in ("--also", model)]
        result = self._call(
            (
                "sbatch", "--parsable", f"--job-name={MARK}.{shape.owner}.{pool}.{gpus}",
                f"--comment=started by {MARK} {shape.owner}", "--nodes=1", f"--ntasks={gpus}",
                f"--gpus-per-node={gpus}", *shape.sbatch_options, str(shape.script), shape.models[0], *also,
                "--served-model-name", shape.served_model_name, *shape.serve_options,
            ),
            **{FOLDER_VARIABLE: str(shape.endpoints), **shape.environment},
        )  # fmt: skip
        if result.exit_code != 0:
            raise self._refusal("sbatch", result)
        try:
            return int(result.output.strip().split(";")[0])
        except ValueError as cause:
            raise Unavailable(f"sbatch: unreadable answer {result.output[:100]!r}") from cause

    def end(self, job_id: int) -> None:
        """One that waits is cancelled, one that runs is asked to end: it lets requests finish and ends well."""
        for option in ("--state=PENDING", "--signal=TERM"):
            result = self._call(("scancel", option, str(job_id)))
            if result.exit_code != 0 and not _GONE.search(result.words()):
                raise self._refusal("scancel", result)

    def _job(self, line: str) -> ServingJob | None:
        """None for a job that is not ours, or ends."""
        job_id, state, node, left, limit, name = [*line.strip().split("|", 5), *[""] * 5][:6]
        ours = self._name.fullmatch(name)
        if ours is None or state not in _LIVES or not job_id.isdigit():
            return None
        runs = _LIVES[state]
        where = node if runs else ""
        return ServingJob(int(job_id), ours[1], int(ours[2]), runs, where, _span_s(left), _span_s(limit))

    def _refusal(self, program: str, result: CommandResult) -> Unavailable | DeviceRefused:
        kind = Unavailable if _NO_ANSWER.search(result.words()) else DeviceRefused
        return kind(f"{program}: {result.words()}")

    def _call(self, argv: Sequence[str], **more: str) -> CommandResult:
        """Without the variables of a job or a shell that change what Slurm's commands do."""
        foreign = ("SQUEUE_", "SBATCH_", "SCANCEL_", "SLURM_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        kept |= {key: value for key, value in os.environ.items() if key.startswith("SLURM_POWER_")}
        conf = self._slurm.slurm_conf or os.environ.get("SLURM_CONF")
        env = {**kept, **({"SLURM_CONF": str(conf)} if conf else {}), "LC_ALL": "C", **more}
        return self._run(argv, timeout_s=self._slurm.timeout_s, env=env)


def _span_s(text: str) -> float | None:
    """None for what is no span."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        return None
    part = {unit: int(number or 0) for unit, number in found.groupdict().items()}
    return ((part["days"] * 24.0 + part["hours"]) * 60.0 + part["minutes"]) * 60.0 + part["seconds"]


def default_endpoints(environ: Mapping[str, str]) -> Path:
    """Where slurm-power-serve says where it is, unless told otherwise."""
    if FOLDER_VARIABLE in environ:
        return Path(environ[FOLDER_VARIABLE]).absolute()
    state = environ.get("XDG_STATE_HOME") or (Path(environ.get("HOME", "/nowhere")) / ".local" / "state")
    return Path(state) / "slurm-power-serve"


def _address(path: Path) -> Address | None:
    """None for a server outside any job, and for what cannot be read: it may be gone by now."""
    if not path.stem.isdigit():
        return None
    try:
        with path.open("rb") as file:
            raw: dict[str, Any] = json.loads(file.read(_MOST_ENDPOINT_BYTES))
        return Address(
            job_id=int(path.stem),
            url=str(raw["url"]),
            token_file=str(raw["token_file"]),
            public_name=str(raw["public_name"]),
            models=tuple(str(name) for name in raw["models"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
