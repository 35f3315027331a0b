"""Our orders against DeepSpeed's own schedule objects, instruction by instruction."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("deepspeed")

from deepspeed.runtime.pipe import schedule as theirs

from training.planning.instructions import BACKWARD, FORWARD, Compute, Exchange, computes
from training.planning.schedule import streams

pytestmark = pytest.mark.torch


def _one_f_one_b(rank, ranks, micro_batches):
    """DeepSpeed names buffers, not micro-batches: those it takes in turn. Exchanges are what stands before a pass."""
    steps = theirs.TrainSchedule(micro_batches, ranks, rank).steps()
    counts = {}
    names = {
        "ForwardPass": FORWARD,
        "BackwardPass": BACKWARD,
        "SendActivation": (FORWARD, rank),
        "SendGrad": (BACKWARD, rank),
        "RecvActivation": (FORWARD, rank - 1),
        "RecvGrad": (BACKWARD, rank + 1),
    }
    out = []
    for commands in steps:
        sends, receives, passes = [], [], []
        for command in commands:
            if command.name not in names:
                continue
            number = counts[command.name] = counts.get(command.name, -1) + 1
            if command.name.endswith("Pass"):
                passes.append(Compute(names[command.name], rank, number))
            else:
                (sends if command.name.startswith("Send") else receives).append(Compute(*names[command.name], number))
        if sends or receives:
            out.append(Exchange(tuple(sends), tuple(receives)))
        out += passes
    return tuple(out)


def _dualpipev(rank, ranks, micro_batches):
    stage_of = (rank, 2 * ranks - 1 - rank)
    kinds = {"ForwardPass": FORWARD, "BackwardPass": BACKWARD}
    kinds |= {"SendActivation": FORWARD, "RecvActivation": FORWARD, "SendGrad": BACKWARD, "RecvGrad": BACKWARD}
    out, sends, receives = [], [], []
    for commands in theirs.DualPipeVSchedule(micro_batches, ranks, rank).steps():
        for command in commands:
            if command.name == "CommitP2P":
                if sends or receives:
                    out.append(Exchange(tuple(sends), tuple(receives)))
                sends, receives = [], []
            elif command.name in kinds:
                phase, number = command.phase, command.buffer_id - command.phase * micro_batches
                kind, stage = kinds[command.name], stage_of[phase]
                if command.name.endswith("Pass"):
                    out.append(Compute(kind, stage, number))
                elif command.name.startswith("Send"):
                    sends.append(Compute(kind, stage, number))
                else:
                    receives.append(Compute(kind, stage + (-1 if kind is FORWARD else 1), number))
    assert not sends
    assert not receives
    return tuple(out)


@pytest.mark.parametrize(("ranks", "micro_batches"), [(1, 3), (2, 1), (2, 4), (3, 7), (4, 2), (4, 8), (8, 16)])
def test_one_f_one_b_is_deepspeeds_train_schedule(ranks, micro_batches) -> None:
    ours = streams("1f1b", ranks, micro_batches)
    assert ours == tuple(_one_f_one_b(rank, ranks, micro_batches) for rank in range(ranks))


@pytest.mark.parametrize(("ranks", "micro_batches"), [(2, 4), (2, 7), (3, 6), (4, 8), (4, 13), (8, 16)])
def test_dualpipev_is_deepspeeds_dualpipev_schedule(ranks, micro_batches) -> None:
    ours = streams("dualpipev", ranks, micro_batches)
    assert ours == tuple(_dualpipev(rank, ranks, micro_batches) for rank in range(ranks))


def test_one_f_one_b_keeps_no_more_micro_batches_than_deepspeed_has_buffers() -> None:
    for rank, stream in enumerate(streams("1f1b", 4, 12)):
        under_way = most = 0
        for compute in computes(stream):
            under_way += 1 if compute.direction is FORWARD else -1
            most = max(most, under_way)
        assert most <= theirs.TrainSchedule(12, 4, rank).num_pipe_buffers()
