"""Idle share of a pipeline's step in closed form, for equal stages and free communication. Pure.

p ranks, m micro-batches, F and B one micro-batch's forward and backward pass through one stage.
"""

from __future__ import annotations


def formula_fraction(schedule: str, ranks: int, micro_batches: int, *, backward_per_forward: float = 2.0) -> float:
    if schedule == "dualpipev":
        return dualpipev_fraction(ranks, micro_batches, backward_per_forward=backward_per_forward)
    return one_f_one_b_fraction(ranks, micro_batches)


def one_f_one_b_fraction(ranks: int, micro_batches: int) -> float:
    """(p-1) / (m+p-1): every rank computes m (F + B) and waits for (p-1)(F + B)."""
    return (ranks - 1) / (micro_batches + ranks - 1)


def dualpipev_fraction(ranks: int, micro_batches: int, *, backward_per_forward: float = 2.0) -> float:
    """Every rank computes 2m (F + B) of its two stages and waits for `dualpipev_idle_forwards` times F."""
    idle = dualpipev_idle_forwards(ranks, backward_per_forward=backward_per_forward)
    return idle / (idle + 2 * micro_batches * (1.0 + backward_per_forward))


def dualpipev_idle_forwards(ranks: int, *, backward_per_forward: float = 2.0) -> float:
    """Idle time of a rank, in F of one of its 2p stages, with weight gradients inside B as in DeepSpeed.

    (p-1)(F + 2B) - min(F, (p-1)(B - F)) for B >= F, (2p-1)F + (p-2)B below: read off replays, which it equals for
    p = 2..8. It is the README's figure (github.com/deepseek-ai/DualPipe) without overlap and without W, less at most F.
    """
    p, b = ranks, backward_per_forward
    if b < 1.0:
        return 2 * p - 1 + (p - 2) * b
    return (p - 1) * (1.0 + 2.0 * b) - min(1.0, (p - 1) * (b - 1.0))


def dualpipe_readme_bubble_s(ranks: int, *, overlapped_s: float, backward_s: float, weight_gradient_s: float) -> float:
    """(PP/2 - 1)(F&B + B - 3W), where DualPipeV's PP = 2p stages; it needs W split off B and F overlapped with B.

    `overlapped_s`: F&B, a forward and a backward pass run at once. `backward_s`: B, weight gradients included.
    `weight_gradient_s`: W. All of one of the 2p stages. DeepSpeed 0.19 does neither: this is still to be had.
    """
    return (ranks - 1) * (overlapped_s + backward_s - 3.0 * weight_gradient_s)
