"""The watchdog, in processes that hang in several ways."""

from __future__ import annotations

import subprocess
import sys

import pytest

_HEAD = """
import ctypes, sys, threading, time
from training.run.watchdog import Watchdog, to_stderr
with Watchdog({limit_s}, rank=3, say={say}) as watchdog:
    watchdog.progress("step 7")
"""


def hanging(body: str, *, limit_s: float = 0.5, say: str = "to_stderr") -> subprocess.CompletedProcess[str]:
    code = _HEAD.format(limit_s=limit_s, say=say) + "".join(f"    {line}\n" for line in body.splitlines())
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


LINE = "rank 3: no progress for 0.5 s in step 7: a peer is gone or hangs\n"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("threading.Event().wait()", id="in-python"),
        pytest.param("ctypes.CDLL(None).pause()", id="in-c"),
        pytest.param("while True: pass", id="busy"),
    ],
)
def test_a_process_without_progress_ends_with_6_and_one_line(body: str):
    ended = hanging(body)
    assert ended.returncode == 6
    assert ended.stderr == LINE


def test_what_was_printed_before_is_not_lost():
    ended = hanging('sys.stdout.write("half a line")\nthreading.Event().wait()')
    assert ended.stdout == "half a line"


def test_a_stderr_that_hangs_does_not_save_the_process():
    ended = hanging("threading.Event().wait()", say="lambda line: threading.Event().wait()")
    assert ended.returncode == 6


def test_a_call_that_holds_the_interpreter_is_ended_by_the_last_resort():
    ended = hanging("ctypes.PyDLL(None).sleep(100)")
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr


def test_progress_keeps_it_away_and_the_end_of_the_block_stops_it():
    body = "for _ in range(12):\n    time.sleep(0.25)\n    watchdog.progress('a step')"
    ended = hanging(body, limit_s=1.5)
    assert (ended.returncode, ended.stderr) == (0, "")
    ended = hanging("pass\nimport os\nos.close(2)", limit_s=0.5)
    assert ended.returncode == 0
