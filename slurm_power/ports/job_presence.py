"""Which jobs still have processes on this node: evidence when the end of a job was never told."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol


class Evidence(StrEnum):
    STEP = "step"  # a step daemon of Slurm serves the job here; a user cannot fake it
    PROCESS = "process"  # a process of the job's own user says it belongs to the job


class JobPresence(Protocol):
    def seen(self, owners: Mapping[int, int]) -> Mapping[int, Evidence]:
        """Evidence for each job of `owners` (job id -> uid) that has some; the others are absent.
        Raise Unavailable when the processes cannot be listed; then nothing may be concluded."""
        ...
