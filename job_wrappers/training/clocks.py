"""One SM clock for each pipeline rank's GPUs: stages with slack run slower, the step stays as long, or nearly so.

Set once, through the node's agent: it lets a job only lower clocks, of its own GPUs, and gives them back at the job's
end, should this process die. A clock that cannot be set costs joules and one line, not the training.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from training.planning.frequency_by_rank import RANK_TOLERANCE_FRACTION, plan_by_rank
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

    def text(self) -> str:
        clocks = f"{', '.join(map(str, self.mhz))} MHz"
        return f"clocks by stage: {clocks}" if self.planned is None else f"{self.planned.text()}: {clocks}"

    @contextmanager
    def lowered(self, client: AgentClient, gpu: str | None, place: RankPlace, plan: ParallelPlan) -> Iterator[None]:
        """Around the training, on every rank: its clock is withdrawn however the training ends.

        Not a StepListener: all ranks need it, and only rank 0's listeners hear of a run's begin and end.
        """
        if place.rank == 0:
            say(self.text())
        if gpu is None:
            log.warning("--clocks: this rank's GPU is not known, so its clock stays")
        lowered = gpu is not None and _asked(client, gpu, clock_of_rank(place.rank, self.mhz, plan))
        try:
            yield
        finally:
            if gpu is not None and lowered:
                _asked(client, gpu, None)


def clock_of_rank(rank: int, clocks_mhz: Sequence[int], plan: ParallelPlan) -> int:
    """`clocks_mhz`: one for each pipeline rank. Ranks are numbered over (pipe, data, tensor), the last fastest."""
    return clocks_mhz[rank // (plan.data * plan.tensor)]


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
    return planned_clocks(plan, profile)


def planned_clocks(plan: ParallelPlan, profile: ClockProfile) -> StageClocks:
    """The step may be longer by RANK_TOLERANCE_FRACTION. Raise ConfigError for a profile that lacks a stage."""
    task = FrequencyTask(
        schedule=plan.schedule,
        ranks=plan.pipeline,
        micro_batches=plan.micro_batches,
        profile=profile,
        tolerance_fraction=RANK_TOLERANCE_FRACTION,
    )
    found = plan_by_rank(task)
    assert found.rank_clock_mhz is not None, "planned by rank"
    return StageClocks(found.rank_clock_mhz, found)


def _asked(client: AgentClient, gpu: str, mhz: int | None) -> bool:
    """Whether the agent did it."""
    try:
        client.lower_clock(job_id_of(), gpu, mhz)
    except SlurmPowerError as error:
        say(f"warning: the clock of {gpu} stays as it is: {error}")
        return False
    return True


def _read(choice: str) -> ClockProfile:
    path, colon, watts = choice.rpartition(":")
    if not colon or not watts.replace(".", "", 1).isdigit():
        raise ConfigError(f"--clocks {choice}: must be MHz,MHz,..., FILE.csv:WATTS or {EMULATED}")
    try:
        return read_profile(Path(path).read_text().splitlines(), waiting_watts=float(watts))
    except OSError as cause:
        raise ConfigError(f"--clocks {path}: {cause.strerror}") from cause
