"""Penalties and cut-offs on rows of logits, as transformers and the OpenAI API define them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from job_wrappers.serving.requests.params import SamplingParams

_FEW = 256
"""So many of the most probable tokens are put in order first: nearly always enough for top-p, and far cheaper than
sorting a vocabulary."""

_NEVER = 2.0
"""A share that a sum of probabilities does not reach, however it is rounded."""


def penalise(
    logits: Tensor, params: Sequence[SamplingParams], prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> None:
    """In place. Repetition looks at prompt and answer, presence and frequency at the answer alone."""
    repeated: list[tuple[int, NDArray[np.int64], NDArray[np.float32]]] = []
    counted: list[tuple[int, NDArray[np.int64], NDArray[np.float32]]] = []
    for row, (p, prompt, answer) in enumerate(zip(params, prompts, answers, strict=True)):
        if p.repetition_penalty != 1.0:
            seen = np.unique(np.asarray([*prompt, *answer], dtype=np.int64))
            repeated.append((row, seen, np.full(len(seen), p.repetition_penalty, dtype=np.float32)))
        if (p.presence_penalty or p.frequency_penalty) and answer:
            seen, counts = np.unique(np.asarray(answer, dtype=np.int64), return_counts=True)
            counted.append((row, seen, (p.presence_penalty + p.frequency_penalty * counts).astype(np.float32)))
    if repeated:
        rows, tokens, factor = _flat(repeated, logits.device)
        picked = logits[rows, tokens]
        logits[rows, tokens] = torch.where(picked < 0, picked * factor, picked / factor)
    if counted:
        rows, tokens, amount = _flat(counted, logits.device)
        logits[rows, tokens] -= amount


def _flat(
    parts: Sequence[tuple[int, NDArray[np.int64], NDArray[np.float32]]], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    rows = np.repeat([row for row, _, _ in parts], [len(tokens) for _, tokens, _ in parts])
    tokens = np.concatenate([tokens for _, tokens, _ in parts])
    values = np.concatenate([values for _, _, values in parts])
    return torch.from_numpy(rows).to(device), torch.from_numpy(tokens).to(device), torch.from_numpy(values).to(device)


def floors(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """[rows, 1]: tokens below it are cut off. `logits` are divided by the temperature already. In the order top-k,
    top-p, min-p; the most probable token stays always, and so do tokens of equal logits."""
    vocabulary = logits.shape[1]
    floor = torch.full((len(params), 1), float("-inf"), dtype=logits.dtype, device=logits.device)
    ordered = [i for i, p in enumerate(params) if 0 < p.top_k < vocabulary or p.top_p < 1.0]
    if ordered:
        index = torch.tensor(ordered, device=logits.device)
        floor[index] = _ordered_floor(logits[index], [params[i] for i in ordered])
    if any(p.min_p for p in params):
        share = torch.tensor([[p.min_p] for p in params], dtype=logits.dtype, device=logits.device)
        floor = torch.maximum(floor, logits.amax(dim=1, keepdim=True) + share.log())
    return floor


def _ordered_floor(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """[rows, 1]: the least probable token that top-k and then top-p leave."""
    device, vocabulary = logits.device, logits.shape[1]
    most = [p.top_k if 0 < p.top_k < vocabulary else vocabulary for p in params]
    k = torch.tensor(most, device=device)[:, None]
    p = torch.tensor([[p.top_p if p.top_p < 1.0 else _NEVER] for p in params], dtype=torch.float64, device=device)
    whole = logits.logsumexp(dim=1, keepdim=True)
    count = min(vocabulary, max(_FEW, *(of for of in most if of < vocabulary), 0))
    while True:
        values = logits.topk(count, dim=1).values
        beyond = torch.arange(count, device=device) >= k
        left = values.masked_fill(beyond, float("-inf"))
        total = torch.where(k < vocabulary, left.logsumexp(dim=1, keepdim=True), whole)
        shares = (left - total).exp().double()
        kept = (shares.cumsum(dim=1) - shares < p) & ~beyond
        undecided = kept[:, -1:] & (k > count)
        if count == vocabulary or not bool(undecided.any()):
            last = (kept.sum(dim=1, keepdim=True) - 1).clamp_(min=0)  # of logits that are no numbers: none is kept
            return values.gather(1, last)
        count = min(vocabulary, 16 * count)
