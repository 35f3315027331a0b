"""Several ranks of one machine: started together, signalled together, ended together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from job_wrappers.training import local_ranks
from job_wrappers.training.local_ranks import run_local_ranks
from job_wrappers.training.place import LOCAL_VARIABLE, place_from
from slurm_power.testing.processes import wait_for

RANK = f"import json, os, sys, time; rank = json.loads(os.environ['{LOCAL_VARIABLE}'])['rank']; "


def python(code: str) -> list[str]:
    return [sys.executable, "-c", RANK + code]


def test_every_rank_runs_once_and_knows_its_place(tmp_path: Path) -> None:
    code = f"open('{tmp_path}/' + str(rank), 'w').write(os.environ['{LOCAL_VARIABLE}'])"
    assert run_local_ranks(3, python(code)) == 0
    places = [place_from({LOCAL_VARIABLE: (tmp_path / str(rank)).read_text()}) for rank in range(3)]
    assert [(place.rank, place.world_size) for place in places] == [(0, 3), (1, 3), (2, 3)]
    assert len({place.key for place in places}) == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param("sys.exit(75 if rank == 0 else 0)", 75, id="rank-0-asks-for-a-requeue"),
        pytest.param("sys.exit(5 if rank == 2 else 0)", 5, id="another-rank-fails"),
        pytest.param("sys.exit(6 if rank else 3)", 3, id="rank-0-first"),
        pytest.param("os.kill(os.getpid(), 9) if rank == 1 else sys.exit(0)", 137, id="killed"),
    ],
)
def test_the_exit_code_says_what_happened(code: str, expected: int) -> None:
    assert run_local_ranks(3, python(code)) == expected


def test_a_rank_that_hangs_after_another_failed_is_ended(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(local_ranks, "_END_S", 1.0)
    code = f"open('{tmp_path}/pid' + str(rank), 'w').write(str(os.getpid())); "
    code += "os.kill(os.getpid(), 9) if rank == 0 else time.sleep(300)"
    assert run_local_ranks(2, python(code)) == 137
    assert "was ended by signal 9" in capfd.readouterr().err
    assert not Path(f"/proc/{(tmp_path / 'pid1').read_text()}").exists()


def test_a_signal_reaches_every_rank(tmp_path: Path) -> None:
    code = (
        "import signal; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(10 + rank)); "
        f"open('{tmp_path}/ready' + str(rank), 'w').close(); time.sleep(60)"
    )
    start = "from job_wrappers.training.local_ranks import run_local_ranks; raise SystemExit(run_local_ranks"
    program = f"{start}(2, {python(code)!r}))"
    parent = subprocess.Popen([sys.executable, "-c", program], env=dict(os.environ))
    try:
        ready = [tmp_path / f"ready{rank}" for rank in range(2)]
        assert wait_for(lambda: all(file.exists() for file in ready), timeout_s=30.0)
        parent.send_signal(signal.SIGUSR1)
        assert parent.wait(timeout=30.0) == 10
    finally:
        parent.kill()
        parent.wait()


def test_ranks_do_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    rank = f"open('{tmp_path}/' + str(os.getpid()), 'w').close(); time.sleep(300)"
    code = (
        "import sys; from job_wrappers.training.local_ranks import run_local_ranks; "
        f"run_local_ranks(2, [sys.executable, '-c', {RANK + rank!r}])"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    assert wait_for(lambda: len(list(tmp_path.iterdir())) == 2, timeout_s=30.0)
    parent.kill()
    parent.wait()
    assert wait_for(lambda: not any(Path(f"/proc/{path.name}").exists() for path in tmp_path.iterdir()), timeout_s=30.0)
