"""What the plugin tells the agent on a real node, and that no agent can hurt a job."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from slurm_power.testing.cluster import DevCluster
from slurm_power.testing.processes import wait_for

USER = "nobody"
OK = b'{"ok": true}\n'
NODES = ("n1", "n2")

# What a user would export to get at other jobs' GPUs or at another node's agent.
SPOOFED = {
    "SLURM_JOB_GPUS": "0,1,2,3",
    "SLURM_STEP_GPUS": "0,1,2,3",
    "CUDA_VISIBLE_DEVICES": "0,1,2,3",
    "SLURMD_NODENAME": "n2",
}


class RecordingAgents:
    """Listens where the agents of some nodes would, keeps what they are told, answers `answer` or nothing."""

    def __init__(self, cluster: DevCluster, answer: bytes | None = OK) -> None:
        self.answer = answer
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self._listeners = {node: self._listen(cluster.agent_socket(node)) for node in NODES}
        self._held: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._serve, args=pair) for pair in self._listeners.items()]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        for listener in self._listeners.values():
            path = Path(listener.getsockname())
            listener.shutdown(socket.SHUT_RDWR)
            path.unlink()
        for thread in self._threads:
            thread.join()
        for connection in (*self._held, *self._listeners.values()):
            connection.close()

    def lines(self, op: str, job_id: int) -> list[dict[str, Any]]:
        return [line for _, line in self.heard if line["op"] == op and line["job_id"] == job_id]

    def _listen(self, path: Path) -> socket.socket:
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(16)
        return listener

    def _serve(self, node: str, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed
            line = json.loads(connection.makefile("rb").readline())
            self.heard.append((node, line))
            self._held.append(connection)
            if self.answer is not None:
                with contextlib.suppress(OSError):
                    connection.sendall(self.answer)


@pytest.fixture
def agents(slurm: DevCluster) -> Iterator[Callable[[bytes | None], RecordingAgents]]:
    with contextlib.ExitStack() as opened:

        def start(answer: bytes | None = OK) -> RecordingAgents:
            recorder = RecordingAgents(slurm, answer)
            opened.callback(recorder.close)
            return recorder

        yield start


def finish(slurm: DevCluster, job_id: int) -> None:
    slurm.wait_for_job(job_id, "COMPLETED", timeout_s=60)
    slurm.wait_for_nodes("idle", timeout_s=30)


def test_the_agent_hears_of_the_jobs_begin_its_tasks_and_its_end(
    slurm: DevCluster, agents: Callable[..., RecordingAgents]
) -> None:
    recorder = agents()
    options = ("--gpu-power-cap=300W", "--power-max-delay=1:30")
    job_id = slurm.sbatch("--nodelist=n1", "--gpus=2", *options, script="srun -n1 true", user=USER)
    finish(slurm, job_id)

    (begin,) = recorder.lines("job_begin", job_id)
    assert begin["node"] == "n1"
    assert begin["uid"] == int(slurm.run("id", "-u", USER).stdout)
    assert begin["gpus"] == begin["visible"] == "0,1"
    assert begin["options"] == {"gpu-power-cap": "300W", "power-max-delay": "1:30"}
    batch, step = recorder.lines("task_begin", job_id)
    assert batch == step == {**begin, "op": "task_begin"}
    assert recorder.lines("job_end", job_id) == [{"op": "job_end", "job_id": job_id, "node": "n1"}]
    assert [line["op"] for _, line in recorder.heard][-1] == "job_end"


def test_an_environment_default_reaches_the_node_as_an_option_does(
    slurm: DevCluster, agents: Callable[..., RecordingAgents]
) -> None:
    recorder = agents()
    environment = {
        "SLURM_POWER_CLASS": "preemptible",
        "SLURM_POWER_MAX_SLOWDOWN": "0.2",
        "SLURM_POWER_GPU_CLOCK": "900",
    }
    job_id = slurm.sbatch("--nodelist=n1", "--gpus=1", script="true", user=USER, environment=environment)
    finish(slurm, job_id)
    expected = {"power-class": "preemptible", "power-max-slowdown": "0.2", "gpu-clock": "900"}
    assert [line["options"] for line in recorder.lines("job_begin", job_id)] == [expected]


def test_every_node_of_a_job_tells_its_own_agent(slurm: DevCluster, agents: Callable[..., RecordingAgents]) -> None:
    recorder = agents()
    job_id = slurm.sbatch("--nodelist=n1,n2", "--gpus-per-node=1", script="srun true", user=USER)
    finish(slurm, job_id)
    for node in NODES:
        ops = [line["op"] for heard_at, line in recorder.heard if heard_at == node and line["node"] == node]
        assert ops[0] == "job_begin"
        assert ops[-1] == "job_end"
    assert all(heard_at == line["node"] for heard_at, line in recorder.heard)


def test_a_users_variables_name_no_gpu_and_no_node(slurm: DevCluster, agents: Callable[..., RecordingAgents]) -> None:
    recorder = agents()
    spoof = " ".join(f"{name}={text}" for name, text in SPOOFED.items())
    with_gpu = slurm.sbatch(
        "--nodelist=n1",
        "--gpus=1",
        script=f"env {spoof} srun -n1 true",
        user=USER,
        environment=SPOOFED,
    )
    without_gpu = slurm.sbatch("--nodelist=n1", script="srun -n1 true", user=USER, environment=SPOOFED)
    finish(slurm, with_gpu)
    finish(slurm, without_gpu)
    told = [line for _, line in recorder.heard if line["op"] == "task_begin"]
    assert {line["job_id"] for line in told} == {with_gpu}
    assert [line["gpus"] for line in told] == ["0", "0"]
    assert {line["node"] for _, line in recorder.heard} == {"n1"}


@pytest.mark.parametrize(
    "answer",
    [None, b"garbage\n", b'{"ok": false, "error": "no"}\n', b"x" * 100_000],
    ids=["silent", "garbage", "refusing", "pouring"],
)
def test_a_hostile_agent_neither_stops_a_job_nor_drains_the_node(
    slurm: DevCluster, agents: Callable[..., RecordingAgents], answer: bytes | None
) -> None:
    recorder = agents(answer)
    job_id = slurm.sbatch("--nodelist=n1", "--gpus=1", script="srun -n1 echo done", user=USER)
    finish(slurm, job_id)
    assert slurm.job_output(job_id) == "done\n", "nothing of ours in the job's own output"
    assert len(recorder.lines("job_end", job_id)) == 1


def test_without_an_agent_the_job_runs_and_the_nodes_log_says_who_was_not_told(slurm: DevCluster) -> None:
    slurm.agent_socket("n1").unlink(missing_ok=True)
    job_id = slurm.sbatch("--nodelist=n1", "--gpus=1", script="echo done", user=USER)
    finish(slurm, job_id)
    assert slurm.job_output(job_id) == "done\n"
    log = slurm.layout.log / "slurmd-n1.log"
    for op in ("job_begin", "task_begin", "job_end"):
        line = f"job {job_id}: the agent was not told of {op}: {slurm.agent_socket('n1')}: No such file"
        assert wait_for(lambda line=line: line in log.read_text(), timeout_s=10), line


def test_an_option_that_bypassed_the_submissions_check_counts_nowhere(
    slurm: DevCluster, agents: Callable[..., RecordingAgents]
) -> None:
    """A user may point sbatch at a slurm.conf of their own, with ranges of their own."""
    slack = slurm.layout.jobs / "plugstack.conf"
    plugstack = (slurm.layout.etc / "plugstack.conf").read_text()
    slack.write_text(plugstack.replace("min_cap=200", "min_cap=1").replace("max_cap=700", "max_cap=9000"))
    conf = slurm.layout.jobs / "slurm.conf"
    conf.write_text(slurm.layout.slurm_conf.read_text().replace(f"{slurm.layout.etc}/plugstack.conf", str(slack)))
    recorder = agents()

    caps = ("9000", "1")
    job_ids = [
        slurm.sbatch(
            "--nodelist=n1",
            "--gpus=1",
            f"--gpu-power-cap={cap}",
            "--power-class=preemptible",
            script="true",
            user=USER,
            environment={"SLURM_CONF": str(conf)},
        )
        for cap in caps
    ]
    for job_id, cap in zip(job_ids, caps, strict=True):
        finish(slurm, job_id)
        facts = slurm.job_facts(job_id)
        assert (facts["Licenses"], facts["AdminComment"]) == ("watts:825", "slurm-power:class=preemptible")
        assert [line["options"] for line in recorder.lines("job_begin", job_id)] == [{"power-class": "preemptible"}]
        ignored = f"ignored --gpu-power-cap={cap}, which is not valid on this node"
        assert ignored in (slurm.layout.log / "slurmd-n1.log").read_text()
