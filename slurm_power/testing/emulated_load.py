"""slurm-power-emulated-load: stands in for a job's GPU work on emulated GPUs.

Opens a load on each GPU of the job and ends once the slowest has done --work-s full-speed seconds,
so a cap or a clock lock makes it take longer, as it would a real job. Imports little: jobs start fast.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slurm_power.errors import ConfigError, SlurmPowerError
from slurm_power.testing.nvml_emulator.emulator import EmulatedNode

POLL_S = 0.25
CHECKPOINT_EVERY_S = 5.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    work_s: float
    utilisation_fraction: float
    checkpoint: Path | None


def job_gpus(environment: Mapping[str, str], node: EmulatedNode) -> list[str]:
    """UUIDs of the job's GPUs. An index in CUDA_VISIBLE_DEVICES is N of /dev/nvidiaN, as Slurm means it.

    Raises ConfigError if the environment names no GPU, DeviceGone if it names one that is not there.
    """
    names = environment.get("SLURM_POWER_GPU_UUIDS") or environment.get("CUDA_VISIBLE_DEVICES", "")
    gpus = [name.strip() for name in names.split(",") if name.strip()]
    if not gpus:
        raise ConfigError("CUDA_VISIBLE_DEVICES = (none): the job has no GPU to work on")
    return [node.uuid_of_minor(int(name)) if name.isdigit() else name for name in gpus]


def read_checkpoint(path: Path | None) -> float:
    """Full-speed seconds done by earlier runs; 0 without a checkpoint."""
    if path is None or not path.exists():
        return 0.0
    try:
        done_s = json.loads(path.read_text())["work_done_s"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"checkpoint = {path}: cannot be read ({error})") from error
    if not isinstance(done_s, int | float) or not 0 <= done_s < float("inf"):
        raise ConfigError(f"checkpoint = {path}: work_done_s must be a number from 0")
    return float(done_s)


def write_checkpoint(path: Path | None, work_done_s: float) -> None:
    """Atomic: a kill leaves the old or the new one."""
    if path is None:
        return
    beside = path.with_name(f"{path.name}.new.{os.getpid()}")
    with beside.open("w") as file:
        json.dump({"work_done_s": work_done_s}, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


@contextlib.contextmanager
def loads_on(node: EmulatedNode, gpus: Sequence[str], utilisation_fraction: float) -> Iterator[int]:
    pid = os.getpid()
    try:
        for uuid in gpus:
            node.open_load(uuid, pid=pid, utilisation_fraction=utilisation_fraction)
        yield pid
    finally:
        for uuid in gpus:
            node.close_load(uuid, pid=pid)


def run(work: Work, node: EmulatedNode, gpus: Sequence[str]) -> int:
    """Exit code: 0 when the work is done, 128 + n when signal n ended it. SIGUSR1 only saves."""
    found_s = done_s = read_checkpoint(work.checkpoint)
    saved_at_s = time.monotonic()
    with loads_on(node, gpus, work.utilisation_fraction) as pid:
        while done_s < work.work_s:
            caught = signal.sigtimedwait(SIGNALS, POLL_S)
            done_s = found_s + min(node.work_done(uuid, pid=pid) for uuid in gpus)
            if caught is not None or time.monotonic() - saved_at_s >= CHECKPOINT_EVERY_S:
                write_checkpoint(work.checkpoint, done_s)
                saved_at_s = time.monotonic()
            if caught is not None and caught.si_signo != signal.SIGUSR1:
                return 128 + caught.si_signo
    write_checkpoint(work.checkpoint, done_s)
    return 0


def parse(arguments: Sequence[str] | None) -> Work:
    parser = argparse.ArgumentParser(prog="slurm-power-emulated-load", description=__doc__)
    parser.add_argument("--work-s", type=float, required=True, help="full-speed seconds of work")
    parser.add_argument("--utilisation", type=float, default=0.95, help="of each GPU, 0 to 1")
    parser.add_argument("--checkpoint", type=Path, help="save progress here; go on from it")
    options = parser.parse_args(arguments)
    if not 0 <= options.work_s < float("inf"):
        parser.error(f"--work-s {options.work_s}: must be 0 or more seconds")
    if not 0 < options.utilisation <= 1:
        parser.error(f"--utilisation {options.utilisation}: must be above 0 and at most 1")
    return Work(
        work_s=options.work_s,
        utilisation_fraction=options.utilisation,
        checkpoint=options.checkpoint,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # taken one by one in run()
    work = parse(arguments)
    try:
        with EmulatedNode.open_from_environment() as node:
            return run(work, node, job_gpus(os.environ, node))
    except SlurmPowerError as error:
        print(f"slurm-power-emulated-load: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
