"""One rank's life: meet the others, train, read the last counter, leave with the exit code that Slurm should see."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from job_wrappers.agent_client import AgentClient, job_id_of
from job_wrappers.training.clocks import StageClocks, stage_clocks
from job_wrappers.training.devices import cuda_index, emulated_load, own_gpu
from job_wrappers.training.energy import EnergyBook, EnergyMeter, gpus_of_rank
from job_wrappers.training.model_choice import model_of
from job_wrappers.training.place import RankPlace, restart_count
from job_wrappers.training.progress import ProgressListener
from job_wrappers.training.run_files import AttemptListener
from job_wrappers.training.say import say
from job_wrappers.training.team import Team
from job_wrappers.training.telemetry import TelemetryListener
from slurm_power.errors import SlurmPowerError
from training.errors import TrainingError, Unavailable
from training.model.config import ModelConfig
from training.parallel.plan import ParallelPlan
from training.planning.volume import bytes_per_step
from training.run.config import RunConfig, parallel_plan
from training.run.listener import Fanout, RunResult, StepListener
from training.run.signals import PowerSignals

log = logging.getLogger(__name__)

NOTICE_S = 2.0
"""A collective fails at once when a peer dies; the roll call names it within this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    config: RunConfig
    place: RankPlace
    model: ModelConfig
    plan: ParallelPlan
    fresh: bool
    clocks: StageClocks | None
    rendezvous_timeout_s: float

    @classmethod
    def checked(
        cls, config: RunConfig, place: RankPlace, *, fresh: bool, clocks: str | None, rendezvous_timeout_s: float
    ) -> Launch:
        """Raise ConfigError for a plan that does not fit model and ranks: before anybody waits for anybody."""
        model = model_of(config.model)
        plan = parallel_plan(config, place.world_size)
        length, policy = config.data.sequence_length, config.precision
        plan.validate(model, length, policy=policy.policy, ranks=place.world_size)
        return cls(
            config=config,
            place=place,
            model=model,
            plan=plan,
            fresh=fresh,
            clocks=None if clocks is None else stage_clocks(clocks, plan, model, length, policy.chosen()),
            rendezvous_timeout_s=rendezvous_timeout_s,
        )


def run_rank(launch: Launch) -> NoReturn:
    """The process ends in here, with the exit code that Slurm is to see."""
    os.environ.update(thread_variables(launch.place, os.environ))
    energy = EnergyBook()
    team = Team(launch.place, on_joules=energy.hear)
    with PowerSignals() as signals:  # from here on a signal is noted, also while ranks still gather
        try:
            os.environ.update(team.meet(timeout_s=launch.rendezvous_timeout_s))
            rank = _Rank(launch, team, energy)
        except (TrainingError, SlurmPowerError) as error:
            team.say_failure(str(error))
            team.end(error.exit_code)
        try:
            result = rank.train(signals)
        except (TrainingError, SlurmPowerError) as error:
            rank.fail(error)
        except Exception as error:  # a mistake of ours: the others must not wait for this rank
            team.say_failure(f"{type(error).__name__}: {error}")
            team.end_later(TrainingError.exit_code)
            raise
        rank.finish(result)


class _Rank:
    def __init__(self, launch: Launch, team: Team, energy: EnergyBook) -> None:
        self._launch, self._team, self._energy = launch, team, energy
        self._client = AgentClient.from_environment()
        index = cuda_index(launch.place)
        # Without a word DeepSpeed looks for an accelerator of its own, and says at length that it found none.
        os.environ.update({"DS_ACCELERATOR": "cpu"} if index is None else {"LOCAL_RANK": str(index)})
        self._gpu = own_gpu(launch.place, index, os.environ)
        self._meter = EnergyMeter(gpus_of_rank(launch.place, self._client, own_gpu=self._gpu), team.send_joules)
        self._attempt = AttemptListener(launch.config.run.folder, energy, known=_known(launch))

    def train(self, signals: PowerSignals) -> RunResult:
        from training.run.loop import run_training

        launch = self._launch
        clocks: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if launch.clocks is not None:
            clocks = launch.clocks.lowered(self._client, self._gpu, launch.place, launch.plan)
        self._meter.start()
        with clocks:
            listener = Fanout(self._listeners())
            return run_training(launch.config, listener=listener, signals=signals, fresh=launch.fresh, say=say)

    def finish(self, result: RunResult) -> NoReturn:
        self._meter.stop()
        self._team.part()
        requeue = result.exit_code == self._launch.config.power.requeue_exit_code
        if not self._team.leads:
            self._team.end(0 if requeue else result.exit_code)
        self._attempt.finish(exit_code=result.exit_code, reason=result.reason, step=result.step)
        write_page(self._launch.config.run.folder)
        self._team.end(result.exit_code)

    def fail(self, error: TrainingError | SlurmPowerError) -> NoReturn:
        """What the roll call knows of a peer that is gone says more than what a collective noticed."""
        lost = self._team.noticed_loss(NOTICE_S) if isinstance(error, Unavailable) else None
        text = lost or str(error)
        self._meter.stop()
        self._team.say_failure(text)
        if self._team.leads:
            self._attempt.finish(exit_code=error.exit_code, reason=text, step=None)
        self._team.end(error.exit_code)

    def _listeners(self) -> list[StepListener]:
        load = emulated_load(self._gpu, self._launch.plan, os.environ)
        listeners: list[StepListener] = [] if load is None else [load]
        if not self._team.leads:
            return listeners
        used_joules = self._energy.used_joules
        listeners += [
            self._attempt,
            ProgressListener(used_joules=used_joules, every_steps=self._launch.config.run.log_every_steps),
        ]
        try:
            listeners.append(TelemetryListener(self._client, job_id_of(), used_joules=used_joules))
        except SlurmPowerError as error:
            log.info("no telemetry: %s", error)
        return listeners


def thread_variables(place: RankPlace, environ: Mapping[str, str]) -> dict[str, str]:
    """CPU threads of this rank, unless the user has said: its CPUs as Slurm says, never more than it may use."""
    if "OMP_NUM_THREADS" in environ:
        return {}
    share = max(1, len(os.sched_getaffinity(0)) // place.local_size)
    return {"OMP_NUM_THREADS": str(min(share, place.cpus) if place.cpus is not None else share)}


def write_page(folder: Path) -> None:
    """report.html in the run folder. It must not change how the run ended."""
    try:
        from job_wrappers.training.report import read_report
        from job_wrappers.training.report_html import write_html

        write_html(read_report(folder), folder / "report.html")
    except Exception as error:  # noqa: BLE001  a picture that cannot be drawn is no reason to requeue, or not to
        log.warning("no report.html: %s", error)


def _known(launch: Launch) -> dict[str, Any]:
    config = launch.config
    in_job = os.environ.get("SLURM_JOB_ID", "").isdigit()
    return {
        "job_id": int(os.environ["SLURM_JOB_ID"]) if in_job else None,
        "restart_count": restart_count(os.environ),
        "nodes": launch.place.nodes,
        "began_at_unix_s": time.time(),
        "model": launch.model.to_hf(),
        "bytes_formula_by_axis": bytes_per_step(
            launch.plan, launch.model, config.data.sequence_length, config.precision.chosen()
        ),
    }
