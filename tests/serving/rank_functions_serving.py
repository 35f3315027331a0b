"""What the ranks of a served model do in tests: rank 0 leads an engine, the others do as they are told."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MIB = 1024 * 1024


def generate(
    folders: dict[str, Path], tensor: int, pipeline: int, prompts: Sequence[Sequence[int]], settings: dict[str, Any]
) -> dict[str, list[list[int]]]:
    """On rank 0: greedy tokens of every prompt on each of the models, switched to in turn. Elsewhere: nothing."""
    from job_wrappers.serving.engine.offline import Offline
    from job_wrappers.serving.ranks.groups import close_groups
    from job_wrappers.serving.requests.params import SamplingParams

    blocks = settings.pop("squeeze_blocks", None)
    host = join(folders, tensor, pipeline, settings)
    found: dict[str, list[list[int]]] = {}
    if host is not None:
        host.loop.call = lambda call: call()  # no thread: `iterate` is called here
        greedy = SamplingParams(max_tokens=12, temperature=0.0)
        for name in host.states:
            host.switch_model(name)
            if blocks is not None:
                squeeze(host.engines[name], blocks)
            found[name] = [answer.tokens[0] for answer in Offline(host).generate(prompts, greedy)]
            preempted = sum(host.engines[name].scheduler.preemptions.values())
            assert preempted > 0 or blocks is None, "blocks did not run out"
        host.team.stop()
    close_groups()
    return found


def squeeze(engine: Any, blocks: int) -> None:
    """Leave only so many blocks: the others are held by nobody in particular."""
    engine._checks = False  # these blocks have no table
    while engine.scheduler.pool.available > blocks:
        engine.scheduler.pool.take()


def serve_until_lost(folder: Path, tensor: int, pipeline: int, ready: Path, rests: bool) -> int:
    """Rank 0 computes without end, or rests, and exits with the code of what stopped it."""
    from job_wrappers.serving.engine.offline import Offline
    from job_wrappers.serving.errors import ServingError
    from job_wrappers.serving.requests.params import SamplingParams

    lost = threading.Event()
    try:
        host = join({"m": folder}, tensor, pipeline, {"max_model_len": 1024}, on_lost=lambda text: lost.set())
        if host is None:
            return 0
        offline = Offline(host)
        offline.generate([[5, 6, 7]], SamplingParams(max_tokens=2, temperature=0.0))
        ready.touch()
        if rests:
            lost.wait()  # noticed though nothing is computed
        while True:
            offline.generate([[5, 6, 7]], SamplingParams(max_tokens=1000, temperature=0.0, ignore_eos=True))
    except ServingError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code


def join(
    folders: dict[str, Path], tensor: int, pipeline: int, settings: dict[str, Any], *, on_lost: Any = None
) -> Any | None:
    """The host on rank 0; None elsewhere, after rank 0 said to stop."""
    import torch

    from job_wrappers.serving.engine.config import EngineConfig, EnginePorts, ModelSpec
    from job_wrappers.serving.engine.host import EngineHost
    from job_wrappers.serving.engine.offline import rank_settings
    from job_wrappers.serving.ranks.channel import MemberChannel
    from job_wrappers.serving.ranks.groups import open_groups
    from job_wrappers.serving.ranks.rank import Rank
    from job_wrappers.serving.ranks.seat import Seat
    from job_wrappers.serving.ranks.team import Team
    from job_wrappers.serving.ranks.worker import run_worker

    values: dict[str, Any] = {
        "models": tuple(ModelSpec(name=name, path=folder) for name, folder in folders.items()),
        "memory_bytes": 128 * MIB,
        "swap_bytes": 4 * MIB,
        "max_model_len": 256,
        "max_num_seqs": 16,
        "max_batched_tokens": 128,
        "tensor_parallel": tensor,
        "pipeline_parallel": pipeline,
        "check_invariants": True,
    }
    config = EngineConfig(**(values | settings))
    seat = Seat(rank=int(os.environ["RANK"]), tensor=tensor, pipeline=pipeline)
    device = torch.device("cpu")
    group, store = open_groups(seat, device)
    rank = Rank(rank_settings(config), seat, device, tp_group=group)
    if seat.rank > 0:
        run_worker(rank, MemberChannel(seat.rank, store))
        return None
    team = Team.gather(rank, store, on_lost=on_lost or (lambda text: None))
    return EngineHost(config, team, EnginePorts(say=lambda line: None))
