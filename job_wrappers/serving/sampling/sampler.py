"""From logits to tokens, all sequences that sample in an iteration at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from job_wrappers.serving.requests.output import TokenLogprob
from job_wrappers.serving.requests.params import SamplingParams
from job_wrappers.serving.sampling.noise import uniform
from job_wrappers.serving.sampling.shaping import floors, penalise

_LEAST_TEMPERATURE = 1e-6
"""Nothing but the most probable token is left there; below it the division would no longer give numbers."""


@dataclass(frozen=True, slots=True)
class SampleRow:
    params: SamplingParams
    seed: int
    """Of the request: its own, or one drawn when it arrived."""

    choice: int
    prompt: Sequence[int]
    generated: Sequence[int]

    @property
    def penalised(self) -> bool:
        p = self.params
        return p.repetition_penalty != 1.0 or p.presence_penalty != 0.0 or p.frequency_penalty != 0.0

    @property
    def shaped(self) -> bool:
        """The token is not simply the most probable one."""
        return not self.params.greedy or self.penalised


@dataclass(frozen=True, slots=True)
class SampledToken:
    token_id: int
    logprob: TokenLogprob | None = None
    failed: bool = False
    """The logits were not numbers: this sequence cannot go on, and the token is none."""


def sample(logits: Tensor, rows: Sequence[SampleRow]) -> list[SampledToken]:
    """`logits` [rows, vocabulary] float32, a row for each of `rows`; not changed."""
    if not rows:
        return []
    tokens = logits.argmax(dim=1)
    sound = logits.gather(1, tokens[:, None])[:, 0].isfinite()  # a NaN counts as the largest
    shaped = [i for i, row in enumerate(rows) if row.shaped]
    if shaped:
        index = torch.tensor(shaped, device=logits.device)
        tokens[index] = _choose(logits[index], [rows[i] for i in shaped])
    asked = [i for i, row in enumerate(rows) if row.params.logprobs is not None]
    logprobs = _logprobs(logits, tokens, asked, rows) if asked else {}
    found = tokens.masked_fill(~sound, _NONE).tolist()
    return [_FAILED if token == _NONE else SampledToken(token, logprobs.get(i)) for i, token in enumerate(found)]


_NONE = -1
_FAILED = SampledToken(0, failed=True)


def _choose(logits: Tensor, rows: Sequence[SampleRow]) -> Tensor:
    """[rows]; changes `logits`."""
    params = [row.params for row in rows]
    if any(row.penalised for row in rows):
        penalise(logits, params, [row.prompt for row in rows], [row.generated for row in rows])
    best = logits.argmax(dim=1)
    drawing = [i for i, p in enumerate(params) if not p.greedy]
    if drawing:
        index = torch.tensor(drawing, device=logits.device)
        best[index] = _draw(logits[index], [rows[i] for i in drawing])
    return best


def _draw(logits: Tensor, rows: Sequence[SampleRow]) -> Tensor:
    """[rows]; changes `logits`. Draws along the tokens' numbers, not in the order of their probabilities: so rounding
    that swaps two equal tokens changes nothing."""
    params = [row.params for row in rows]
    divisor = torch.tensor([[max(p.temperature, _LEAST_TEMPERATURE)] for p in params], device=logits.device)
    logits.sub_(logits.amax(dim=1, keepdim=True)).div_(divisor)
    logits.masked_fill_(logits < floors(logits, params), float("-inf"))
    summed = logits.softmax(dim=1).cumsum(dim=1, dtype=torch.float64)
    noise = [[uniform(row.seed, row.choice, len(row.generated))] for row in rows]
    target = torch.tensor(noise, dtype=torch.float64, device=logits.device) * summed[:, -1:]
    return torch.searchsorted(summed, target, right=True)[:, 0].clamp_(max=logits.shape[1] - 1)  # NaN: beyond the end


def _logprobs(
    logits: Tensor, tokens: Tensor, asked: Sequence[int], rows: Sequence[SampleRow]
) -> dict[int, TokenLogprob]:
    """By row, of the model itself: before penalties, temperature and cut-offs."""
    index = torch.tensor(asked, device=logits.device)
    chosen = tokens[index]
    all_of_them = logits[index].log_softmax(dim=1)
    counts = [min(rows[i].params.logprobs or 0, logits.shape[1]) for i in asked]
    top = all_of_them.topk(max(counts), dim=1)
    of_chosen = all_of_them.gather(1, chosen[:, None])[:, 0].tolist()
    best = zip(chosen.tolist(), of_chosen, top.indices.tolist(), top.values.tolist(), counts, strict=True)
    return {
        i: TokenLogprob(token, logprob, tuple(zip(ids[:count], values[:count], strict=True)))
        for i, (token, logprob, ids, values, count) in zip(asked, best, strict=True)
    }
