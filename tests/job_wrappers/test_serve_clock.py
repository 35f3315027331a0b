"""The clock through the agent: what it says becomes one line of the server's."""

from __future__ import annotations

from typing import cast

import pytest

from job_wrappers.agent_client import AgentClient
from job_wrappers.serving.errors import ServingError
from job_wrappers.serving.launch.clock import clock_through_agent
from slurm_power.errors import NotPermitted, Unavailable


@pytest.fixture(autouse=True)
def _in_job_7(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")


class Agent:
    def __init__(self, answer: Exception | None = None) -> None:
        self.answer, self.asked = answer, list[tuple[int, str, int | None]]()

    def lower_clock(self, job_id: int, gpu: str, mhz: int | None) -> None:
        self.asked.append((job_id, gpu, mhz))
        if self.answer is not None:
            raise self.answer


def test_the_agent_is_asked_for_this_jobs_gpu() -> None:
    agent = Agent()
    set_clock = clock_through_agent(cast(AgentClient, agent), "GPU-a")
    set_clock(1200)
    set_clock(None)
    assert agent.asked == [(7, "GPU-a", 1200), (7, "GPU-a", None)]


@pytest.mark.parametrize("answer", [Unavailable("agent.sock: no such file"), NotPermitted("not your GPU")])
def test_an_agent_that_is_away_or_refuses_is_no_server_error(answer: Exception) -> None:
    set_clock = clock_through_agent(cast(AgentClient, Agent(answer)), "GPU-a")
    with pytest.raises(ServingError, match=f"the clock stays as it is: {answer}"):
        set_clock(1200)


def test_outside_a_job_there_is_a_server_but_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID")
    set_clock = clock_through_agent(cast(AgentClient, Agent()), "GPU-a")
    with pytest.raises(ServingError, match="SLURM_JOB_ID"):
        set_clock(1200)
