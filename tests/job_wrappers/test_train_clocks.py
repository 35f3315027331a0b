"""One clock for each pipeline rank: which one, and that it is given back however the training ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from job_wrappers.agent_client import AgentClient
from job_wrappers.training.clocks import StageClocks, clock_of_rank, planned_clocks, stage_clocks
from job_wrappers.training.place import RankPlace
from slurm_power.errors import NotPermitted
from training.errors import ConfigError, NumericsError
from training.model.presets import preset
from training.parallel.plan import ParallelPlan
from training.planning.power_model import emulated_profile
from training.planning.replay import StageTimes
from training.precision import policy

PLAN = ParallelPlan(pipeline=2, tensor=2, data=2, micro_batches=8)
CLOCKS = StageClocks((1980, 1500), None)
GPU = "GPU-1"


class RecordingClient(AgentClient):
    """An agent that does what it is asked, or refuses to lower."""

    def __init__(self, *, refuses: bool = False) -> None:
        super().__init__("/nowhere")
        self.refuses = refuses
        self.asked: list[tuple[int, str, int | None]] = []

    def lower_clock(self, job_id: int, uuid: str, mhz: int | None) -> None:
        self.asked.append((job_id, uuid, mhz))
        if self.refuses:
            raise NotPermitted("not a GPU of this job")


@pytest.fixture(autouse=True)
def in_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")


def place(rank: int) -> RankPlace:
    return RankPlace(rank=rank, world_size=PLAN.world_size)


def test_every_rank_of_a_stage_has_its_clock() -> None:
    assert [clock_of_rank(rank, CLOCKS.mhz, PLAN) for rank in range(8)] == [1980] * 4 + [1500] * 4


def test_a_clock_is_lowered_for_the_training_and_withdrawn_after_it() -> None:
    client = RecordingClient()
    with CLOCKS.lowered(client, GPU, place(5), PLAN):
        assert client.asked == [(12, GPU, 1500)]
    assert client.asked[1:] == [(12, GPU, None)]


@pytest.mark.parametrize("ending", [NumericsError("step 3, rank 5: loss is nan"), KeyboardInterrupt(), SystemExit(6)])
def test_a_clock_is_withdrawn_in_any_ending(ending: BaseException) -> None:
    client = RecordingClient()
    with pytest.raises(type(ending)), CLOCKS.lowered(client, GPU, place(5), PLAN):
        raise ending
    assert client.asked[-1] == (12, GPU, None)


def test_a_refusal_is_one_line_and_the_training_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    client, trained = RecordingClient(refuses=True), False
    with CLOCKS.lowered(client, GPU, place(5), PLAN):
        trained = True
    assert trained
    assert client.asked == [(12, GPU, 1500)], "what was not lowered is not withdrawn"
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "slurm-power-train: warning: the clock of GPU-1 stays as it is: not a GPU of this job"


def test_a_missing_agent_is_one_line_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with CLOCKS.lowered(AgentClient(str(tmp_path / "agent.sock")), GPU, place(5), PLAN):
        pass
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_unknown_gpu_keeps_its_clock(caplog: pytest.LogCaptureFixture) -> None:
    client = RecordingClient()
    with CLOCKS.lowered(client, None, place(5), PLAN):
        pass
    assert client.asked == []
    assert [record.getMessage() for record in caplog.records] == [
        "--clocks: this rank's GPU is not known, so its clock stays"
    ]


def test_the_first_rank_says_what_is_saved(capsys: pytest.CaptureFixture[str]) -> None:
    uneven = StageTimes(forward_s=(0.1, 0.2), backward_s=(0.2, 0.4))
    clocks = planned_clocks(PLAN, emulated_profile(uneven))
    assert clocks.planned is not None
    assert clocks.mhz[0] < clocks.mhz[1], "the lighter stage waits, so it may be slower"
    assert clocks.planned.saved_joules > 0
    for rank in (0, 1):
        with clocks.lowered(RecordingClient(), GPU, place(rank), PLAN):
            pass
    (line,) = capsys.readouterr().err.splitlines()
    assert "J a step saved" in line
    assert line.endswith(f"{clocks.mhz[0]}, {clocks.mhz[1]} MHz")


def chosen(choice: str) -> StageClocks:
    return stage_clocks(choice, PLAN, preset("small-v3"), 256, policy("fp8"))


def test_clocks_come_from_a_person_a_profile_or_the_emulated_board(tmp_path: Path) -> None:
    assert chosen("1980, 1500") == CLOCKS
    assert len(chosen("emulated").mhz) == 2
    lines = ["stage,instruction,frequency,time,energy"]
    for stage, stretch in ((0, 1.0), (1, 2.0)):
        for direction in ("forward", "backward"):
            lines += [f"{stage},{direction},1980,{stretch},{700 * stretch}"]
            lines += [f"{stage},{direction},990,{1.05 * stretch},{450 * stretch}"]
    profile = tmp_path / "profile.csv"
    profile.write_text("\n".join(lines))
    assert chosen(f"{profile}:130").mhz == (990, 1980)


@pytest.mark.parametrize(
    ("choice", "rule"),
    [
        ("1980", "must be one for each of 2 pipeline ranks"),
        ("fast", r"must be MHz,MHz,\.\.\., FILE\.csv:WATTS or emulated"),
        ("nowhere.csv:130", "No such file or directory"),
        ("nowhere.csv:many", "FILE"),
    ],
)
def test_anything_else_is_refused_in_one_line(choice: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        chosen(choice)
