"""Runs a model once as large as it may get: peak memory of activations and sampling, and the speed of prefill."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from job_wrappers.serving.ranks.commands import Profile, Profiled
from job_wrappers.serving.ranks.dummy import dummy_step
from job_wrappers.serving.ranks.memory import peak_bytes
from job_wrappers.serving.ranks.model_runner import ModelRunner
from job_wrappers.serving.requests.params import SamplingParams
from job_wrappers.serving.sampling.sampler import SampleRow, sample
from job_wrappers.serving.steps.step_input import StepInput

if TYPE_CHECKING:
    from job_wrappers.serving.ranks.rank import Rank

_UNMEASURED_LOGITS_COPIES = 4
"""Where the kernel does not tell our peak: logits, their sorted copy, probabilities, noise."""


def profile(rank: Rank, runner: ModelRunner, command: Profile) -> Profiled:
    """Collective: all ranks of the model at once. Before the runner has a cache of its own."""
    tokens, sequences = command.batched_tokens, min(command.sequences, command.batched_tokens)

    def step(of: int, context_tokens: int) -> StepInput:
        block_tokens = runner.layout.block_tokens
        return dummy_step(tokens=tokens, sequences=of, context_tokens=context_tokens, block_tokens=block_tokens)

    runner.allocate(device_blocks=1, host_blocks=0)
    try:
        with peak_bytes(rank.device) as peak:
            _run(rank, runner, step(1, command.context_tokens))
            _run(rank, runner, step(sequences, 0))
        began_s = time.perf_counter()
        _run(rank, runner, step(1, 0))
        took_s = time.perf_counter() - began_s
    finally:
        runner.drop_cache()
    used = peak.used_bytes
    if used is None:
        used = (tokens * runner.hidden_size * 16 + sequences * runner.vocab_size * _UNMEASURED_LOGITS_COPIES) * 4
    return Profiled(activation_bytes=used, prefill_tokens_per_s=tokens / took_s)


def _run(rank: Rank, runner: ModelRunner, step: StepInput) -> None:
    logits = rank.run_model(runner, step)
    if logits is not None and rank.seat.rank == 0:
        params = SamplingParams(temperature=1.0, top_p=0.9, top_k=50, repetition_penalty=1.1, seed=0)
        sample(logits, [SampleRow(params, 0, 0, [0], [])] * len(logits))
    if rank.device.type == "cuda":
        torch.cuda.synchronize(rank.device)
