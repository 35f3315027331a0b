"""Resident memory of the engine while thousands of requests come and go. In a process of its own:
`python -m bench.serving_memory FOLDER OUTPUT`."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.serving_model import THREADS, VOCABULARY

REQUESTS, AT_ONCE = 2000, 50
SETTLED = 400
"""Requests after which every length has been seen: growth is counted from here."""

PROMPT_TOKENS, NEW_TOKENS = (4, 200), (1, 24)


def measure(folder: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="slurm-power-bench-") as name:
        output = Path(name) / "answer.json"
        command = [sys.executable, "-m", "bench.serving_memory", str(folder), str(output)]
        subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": str(THREADS)}, check=True)
        answer: dict[str, Any] = json.loads(output.read_text())
        return answer


def _run(folder: Path) -> dict[str, Any]:
    from job_wrappers.serving.engine.config import EngineConfig, ModelSpec
    from job_wrappers.serving.engine.offline import Offline, one_rank_host
    from job_wrappers.serving.requests.params import SamplingParams

    spec = ModelSpec(name="model", path=folder)
    offline = Offline(one_rank_host(EngineConfig(models=(spec,), memory_bytes=1024**3, max_model_len=1024)))
    dice = random.Random(0)
    seen: list[int] = []
    for done in range(0, REQUESTS, AT_ONCE):
        for _ in range(AT_ONCE):
            prompt = [dice.randrange(16, VOCABULARY) for _ in range(dice.randint(*PROMPT_TOKENS))]
            offline.submit(prompt, SamplingParams(temperature=0.0, max_tokens=dice.randint(*NEW_TOKENS)))
        while offline.step():
            pass
        if done + AT_ONCE >= SETTLED:
            seen.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    return {"requests": REQUESTS, "rss_bytes_settled": seen[0], "rss_bytes_end": seen[-1], "rss_bytes_most": max(seen)}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(_run(Path(sys.argv[1]))))
