"""Writes the attempt and its energy while the training goes on; a listener on rank 0."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job_wrappers.training.attempts import AttemptBegin, AttemptEnd, AttemptFiles
from job_wrappers.training.energy import EnergyBook
from training.errors import StorageError
from training.run.listener import NullListener, RunFacts, StepRecord

log = logging.getLogger(__name__)

FLUSH_S = 5.0


class AttemptListener(NullListener):
    """`known`: the fields of AttemptBegin that the run's facts do not hold."""

    def __init__(self, folder: Path, energy: EnergyBook, *, known: Mapping[str, Any]) -> None:
        self._files = AttemptFiles(folder, take_trace=energy.take_trace)
        self._energy, self._known = energy, known
        self._begun = False
        self._flush_at_s = 0.0

    def on_run_begin(self, facts: RunFacts) -> None:
        self._files.begin(
            AttemptBegin(
                trained_from_unix_s=facts.began_at_unix_s,
                resumed_from_step=facts.resumed_from_step,
                plan=dict(facts.plan),
                policy=facts.policy,
                parameters=facts.parameters,
                world_size=facts.world_size,
                steps=facts.steps,
                global_sequences=facts.global_sequences,
                sequence_length_tokens=facts.sequence_length_tokens,
                peak_flops_per_s=facts.peak_flops_per_s,
                **self._known,
            )
        )
        self._begun = True

    def on_step(self, record: StepRecord) -> None:
        if time.monotonic() >= self._flush_at_s:
            self._files.flush()
            self._flush_at_s = time.monotonic() + FLUSH_S

    def finish(self, *, exit_code: int, reason: str, step: int | None) -> None:
        """After the last counter was read. A full disk does not change how the run ended."""
        if not self._begun:
            return
        self._energy.note_end()
        try:
            self._files.end(
                AttemptEnd(
                    ended_at_unix_s=time.time(),
                    exit_code=exit_code,
                    reason=reason,
                    step=step,
                    gpus=self._energy.gpus,
                    used_joules=self._energy.used_joules(),
                    energy_unknown=self._energy.unknown,
                )
            )
        except StorageError as error:
            log.warning("the attempt's end is not recorded: %s", error)
