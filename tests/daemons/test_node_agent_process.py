"""The real agent program against emulated GPUs: kill -9, two jobs, other users. Needs root and cc, not Slurm."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from job_wrappers.agent_client import AgentClient
from slurm_power.errors import NotPermitted, Unavailable
from slurm_power.testing.nvml_emulator.emulator import ENVIRONMENT, EmulatedNode, build_library

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="setting emulated caps needs root, as NVML does"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="the emulated NVML needs a C compiler"),
]

USER = 65534
FOUND_WATTS = 600.0
CONFIG = """
[agent]
safe_cap_watts = 400
node_base_watts = 500
sample_period_s = 0.1
presence_period_s = 0.2
absent_grace_s = {grace_s}
socket = "{folder}/agent.sock"
journal = "{folder}/journal.jsonl"

[store]
path = "{folder}/telemetry.db"
"""


@dataclass
class Machine:
    """A node with emulated GPUs, and the agent program on it."""

    folder: Path
    emulated: EmulatedNode
    agent: subprocess.Popen[bytes] | None = None
    others: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def client(self) -> AgentClient:
        return AgentClient(str(self.folder / "agent.sock"), timeout_s=5.0)

    def environment(self) -> dict[str, str]:
        """With a cluster of its own: a job of the same number on another cluster of this machine is none of ours."""
        return {
            **os.environ,
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            ENVIRONMENT: str(self.folder / "gpus.state"),
            "LD_LIBRARY_PATH": str(build_library()),
            "SLURM_POWER_AGENT_SOCKET": str(self.folder / "agent.sock"),
        }

    def write_config(self, *, grace_s: float = 600.0) -> Path:
        config = self.folder / "slurm-power.toml"
        config.write_text(CONFIG.format(folder=self.folder, grace_s=grace_s))
        return config

    def start_agent(self, *, grace_s: float = 600.0) -> None:
        config = self.write_config(grace_s=grace_s)
        command = [sys.executable, "-m", "slurm_power.cli.agent", "--config", str(config), "--node", "n1"]
        with (self.folder / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(command, env=self.environment(), stdout=log, stderr=log)
        until(self._answers)

    def stop_agent(self, number: signal.Signals) -> None:
        assert self.agent is not None
        self.agent.send_signal(number)
        self.agent.wait(20)
        self.agent = None

    def begin(self, job_id: int, gpus: str, cap: str, *, uid: int = USER) -> None:
        self.client.ask(
            {
                "op": "job_begin",
                "job_id": job_id,
                "uid": uid,
                "node": "n1",
                "gpus": gpus,
                "visible": gpus,
                "options": {"gpu-power-cap": cap},
            }
        )

    def end(self, job_id: int) -> None:
        self.client.ask({"op": "job_end", "job_id": job_id, "node": "n1"})

    def caps(self) -> list[float]:
        """By minor number, as Slurm counts."""
        return [self.emulated.gpu_cap_watts(self.emulated.uuid_of_minor(minor)) for minor in range(4)]

    def run_task(self, job_id: int) -> subprocess.Popen[bytes]:
        """A process as a task of the job has it: its user, its environment."""
        environment = {"SLURM_JOB_ID": str(job_id), "SLURMD_NODENAME": "n1"}
        task = subprocess.Popen(["/bin/sleep", "300"], env=environment, user=USER, group=USER, extra_groups=[])
        self.others.append(task)
        return task

    def close(self) -> None:
        for process in (*self.others, *([self.agent] if self.agent else [])):
            process.kill()
            process.wait()
        self.emulated.close()

    def _answers(self) -> bool:
        assert self.agent is not None
        assert self.agent.poll() is None, (self.folder / "agent.log").read_text()
        try:
            return bool(self.client.ask({"op": "status"})["gpus"])
        except Unavailable:
            return False


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def machine() -> Iterator[Machine]:
    # Short, because a socket's path may be; readable by other users, because they must reach the socket.
    with tempfile.TemporaryDirectory(prefix="agent-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        emulated = EmulatedNode.create(folder / "gpus.state", gpu_count=4, uuid_seed=folder.name)
        for uuid in emulated.gpu_uuids():
            emulated.set_found_cap(uuid, FOUND_WATTS)
        node = Machine(folder, emulated)
        try:
            yield node
        finally:
            node.close()


def test_a_job_caps_exactly_its_gpus_and_the_found_value_comes_back(machine: Machine) -> None:
    machine.start_agent()
    machine.begin(1, "0,2", "300")
    assert machine.caps() == [300, FOUND_WATTS, 300, FOUND_WATTS]
    machine.end(1)
    assert machine.caps() == [FOUND_WATTS] * 4


def test_two_jobs_with_different_caps_on_one_node(machine: Machine) -> None:
    machine.start_agent()
    machine.begin(1, "0,1", "300W")
    machine.begin(2, "2,3", "450", uid=USER - 1)
    assert machine.caps() == [300, 300, 450, 450]
    machine.end(2)
    assert machine.caps() == [300, 300, FOUND_WATTS, FOUND_WATTS]


def test_kill_9_in_the_middle_keeps_the_cap_of_a_job_that_runs_on(machine: Machine) -> None:
    machine.start_agent()
    machine.begin(1, "0", "300")
    task = machine.run_task(1)
    machine.stop_agent(signal.SIGKILL)
    assert machine.caps()[0] == 300
    machine.start_agent(grace_s=1.0)
    time.sleep(2.0)  # twice the grace
    assert machine.caps()[0] == 300
    task.kill()
    task.wait()
    until(lambda: machine.caps()[0] == FOUND_WATTS)


def test_kill_9_and_a_job_that_was_cancelled_meanwhile(machine: Machine) -> None:
    machine.start_agent()
    machine.begin(1, "0,1", "300")
    machine.stop_agent(signal.SIGKILL)
    assert machine.caps() == [300, 300, FOUND_WATTS, FOUND_WATTS]
    machine.start_agent(grace_s=1.0)
    until(lambda: machine.caps() == [FOUND_WATTS] * 4)
    until(
        lambda: (
            '"kind": "loan"' not in (text := (machine.folder / "journal.jsonl").read_text())
            and '"kind": "job"' not in text
        )
    )


def test_a_clean_stop_gives_back(machine: Machine) -> None:
    machine.start_agent()
    machine.begin(1, "1", "300")
    machine.stop_agent(signal.SIGTERM)
    assert machine.caps() == [FOUND_WATTS] * 4
    assert not (machine.folder / "agent.sock").exists()


def test_another_user_cannot_change_anything(machine: Machine) -> None:
    machine.start_agent()
    machine.begin(1, "0", "300", uid=USER - 1)
    uuid = machine.emulated.uuid_of_minor(0)
    attempts = [
        {"op": "set_cap", "job_id": 1, "uuid": uuid, "watts": 210},
        {"op": "job_end", "job_id": 1, "node": "n1"},
        {"op": "job_begin", "job_id": 9, "uid": USER, "node": "n1", "gpus": "1", "options": {"gpu-power-cap": "200"}},
        {"op": "my_gpus", "job_id": 1},
        {"op": "points", "job_id": 1, "points": [{"measurement": "job_x", "wall_s": 1.0, "fields": {"a": 1}}]},
    ]
    answers = as_user(machine.folder / "agent.sock", attempts)
    assert [answer["ok"] for answer in answers] == [False] * len(attempts)
    assert machine.caps() == [300, FOUND_WATTS, FOUND_WATTS, FOUND_WATTS]


def test_the_owner_may_lower_but_not_raise(machine: Machine) -> None:
    machine.start_agent()
    machine.begin(1, "0", "300")
    uuid = machine.emulated.uuid_of_minor(0)
    lower = {"op": "set_cap", "job_id": 1, "uuid": uuid, "watts": 250}
    answers = as_user(machine.folder / "agent.sock", [lower, lower | {"watts": 500}])
    assert [answer["ok"] for answer in answers] == [True, False]
    assert machine.caps()[0] == 250


def test_a_lost_gpu_does_not_stop_the_others(machine: Machine) -> None:
    machine.start_agent()
    machine.emulated.set_fault(machine.emulated.uuid_of_minor(0), "lost")
    machine.begin(1, "0,1", "300")
    assert machine.caps()[1] == 300
    gpus = machine.client.ask({"op": "status"})["gpus"]
    assert sum(gpu["error"] is not None for gpu in gpus) == 1


def test_a_second_agent_is_turned_away(machine: Machine) -> None:
    machine.start_agent()
    second = agent_once(machine, "--node", "n1")
    assert second.returncode == 3
    assert "another agent listens there" in second.stderr
    assert machine.client.ask({"op": "status"})["ok"]


def test_without_the_right_to_set_caps_the_agent_says_so_in_one_line(machine: Machine) -> None:
    machine.write_config()
    refused = agent_once(machine, user=USER)
    assert refused.returncode == 4
    assert refused.stderr.count("\n") == 1
    assert "needs root" in refused.stderr


def test_a_bad_config_is_one_line(machine: Machine) -> None:
    (machine.folder / "slurm-power.toml").write_text("[agent]\nsafe_cap_watts = -1\n")
    refused = agent_once(machine)
    assert refused.returncode == 3
    assert refused.stderr.strip().endswith("[agent] safe_cap_watts = -1.0: must be positive")


def test_an_unreadable_journal_stops_the_agent_before_it_borrows_more(machine: Machine) -> None:
    machine.write_config()
    (machine.folder / "journal.jsonl").write_text("what is this\n")
    refused = agent_once(machine)
    assert refused.returncode == 6
    assert "damaged" in refused.stderr


def test_slurm_power_run_measures_a_command_of_a_job(machine: Machine) -> None:
    machine.start_agent()
    machine.begin(1, "1,3", "300")
    command = [
        sys.executable,
        "-m",
        "job_wrappers.run",
        "--",
        "sh",
        "-c",
        "sleep 1; echo $SLURM_POWER_GPU_UUIDS; exit 7",
    ]
    done = subprocess.run(
        command,
        env=machine.environment() | {"SLURM_JOB_ID": "1", "SLURMD_NODENAME": "n1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 7
    assert done.stdout.strip() == ",".join(machine.emulated.uuid_of_minor(minor) for minor in (1, 3))
    assert done.stderr.count("\n") == 1
    assert "2 GPUs" in done.stderr
    assert "kWh" in done.stderr
    machine.stop_agent(signal.SIGTERM)
    ends = stored(machine, "job_run", "end")
    assert len(ends) == 1
    assert ends[0]["job_id"] == 1
    assert ends[0]["mean_watts"] > 0


def stored(machine: Machine, measurement: str, event: str) -> list[dict[str, float]]:
    from slurm_power.adapters.telemetry_config import StoreConfig
    from slurm_power.adapters.telemetry_open import open_store

    store = open_store(StoreConfig(path=machine.folder / "telemetry.db"))
    try:
        points = store.read(measurement, since_wall_s=0.0)
    finally:
        store.close()
    return [dict(point.fields) for point in points if point.fields["event"] == event]  # type: ignore[arg-type]


def agent_once(machine: Machine, *options: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run an agent that is expected to end by itself."""
    config = str(machine.folder / "slurm-power.toml")
    program = "from slurm_power.cli.agent import main; main()"
    if user is not None:
        # Only after its imports: another user need not be able to read where the program lives.
        program = f"from slurm_power.cli.agent import main; import os; os.setuid({user}); main()"
    return subprocess.run(
        [sys.executable, "-c", program, "--config", config, *options],
        env=machine.environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def as_user(path: Path, requests: list[dict[str, object]]) -> list[dict[str, object]]:
    """What the agent answers an ordinary user. The kernel takes the uid at connect, so only that runs as the user."""
    script = (
        "import os, socket, sys, json\n"
        f"os.setgroups([]); os.setgid({USER}); os.setuid({USER})\n"
        "for line in sys.stdin:\n"
        "    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(line.encode())\n"
        "    print(s.makefile().readline(), end='')\n"
    )
    done = subprocess.run(
        ["/usr/bin/env", "python3", "-I", "-c", script, str(path)],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_dead_agents_socket_file_is_replaced(machine: Machine) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(machine.folder / "agent.sock"))
    machine.start_agent()
    with pytest.raises(NotPermitted):
        machine.client.my_gpus(99)
