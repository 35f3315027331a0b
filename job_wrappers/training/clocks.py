"""One SM clock for each pipeline rank's GPUs, so that stages with slack run slower and the step stays as long.

Set once, through the node's agent: it lets a job only lower clocks, of its own GPUs, and gives them back at its end.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from job_wrappers.agent_client import AgentClient, job_id_of
from job_wrappers.training.place import RankPlace
from job_wrappers.training.say import say
from slurm_power.errors import SlurmPowerError
from training.errors import ConfigError, require
from training.model.config import ModelConfig
from training.parallel.plan import ParallelPlan
from training.planning.clock_profiles import ClockProfile, read_profile
from training.planning.cost import predict_step
from training.planning.frequency import FrequencyPlan, FrequencyTask
from training.planning.frequency_by_rank import plan_by_rank
from training.planning.hardware import PRESETS
from training.planning.power_model import emulated_profile
from training.precision import PrecisionPolicy

log = logging.getLogger(__name__)

EMULATED = "emulated"


@dataclass(frozen=True, slots=True)
class StageClocks:
    mhz: tuple[int, ...]
    """One for each pipeline rank."""

    planned: FrequencyPlan | None
    """Where they come from; None: a person said them."""

    def lower(self, client: AgentClient, gpu: str | None, place: RankPlace, plan: ParallelPlan) -> None:
        """Set this rank's. A refusal is one line and costs joules, not the training."""
        if self.planned is not None and place.rank == 0:
            say(f"{self.planned.text()}: {', '.join(map(str, self.mhz))} MHz")
        stage = place.rank // (plan.data * plan.tensor)  # ranks are numbered over (pipe, data, tensor)
        _ask(client, gpu, self.mhz[stage])

    def restore(self, client: AgentClient, gpu: str | None) -> None:
        """The job's next step finds the clock that the job was given; at its end the agent gives it back anyway."""
        _ask(client, gpu, None)


def stage_clocks(
    choice: str, plan: ParallelPlan, model: ModelConfig, sequence_length: int, policy: PrecisionPolicy
) -> StageClocks:
    """`choice`: clocks in MHz (`1980,1500`), a profile in Zeus' form with the watts of a waiting GPU
    (`profile.csv:130`), or `emulated`: predicted stage times and the power model of the emulated board.

    Raise ConfigError for anything else.
    """
    parts = choice.split(",")
    if all(part.strip().isdigit() for part in parts):
        rule = f"must be one for each of {plan.pipeline} pipeline ranks"
        require(len(parts) == plan.pipeline, "--clocks", choice, rule)
        return StageClocks(tuple(map(int, parts)), None)
    if choice == EMULATED:
        profile = emulated_profile(predict_step(plan, model, sequence_length, policy, PRESETS[EMULATED]).stage_times)
    else:
        profile = _read(choice)
    found = _planned(plan, profile)
    return StageClocks(found.rank_clock_mhz or (), found)


def _ask(client: AgentClient, gpu: str | None, mhz: int | None) -> None:
    if gpu is None:
        log.warning("--clocks: this rank's GPU is not known, so its clock stays")
        return
    try:
        client.lower_clock(job_id_of(), gpu, mhz)
    except SlurmPowerError as error:
        say(f"warning: the clock of {gpu} stays: {error}")


def _planned(plan: ParallelPlan, profile: ClockProfile) -> FrequencyPlan:
    return plan_by_rank(
        FrequencyTask(schedule=plan.schedule, ranks=plan.pipeline, micro_batches=plan.micro_batches, profile=profile)
    )


def _read(choice: str) -> ClockProfile:
    path, colon, watts = choice.rpartition(":")
    if not colon or not watts.replace(".", "", 1).isdigit():
        raise ConfigError(f"--clocks {choice}: must be MHz,MHz,..., FILE.csv:WATTS or {EMULATED}")
    try:
        return read_profile(Path(path).read_text().splitlines(), waiting_watts=float(watts))
    except OSError as cause:
        raise ConfigError(f"--clocks {path}: {cause.strerror}") from cause
