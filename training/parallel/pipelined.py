"""An Engine on DeepSpeed's pipeline engines, 1F1B or DualPipeV, with one stage or many; ZeRO-1.

Relies on DeepSpeed 0.19: an engine looks instructions up in `self._INSTRUCTION_MAP`, so a map of its own changes no
other engine; `total_loss` is the sum over the micro-batches so far on the rank that computes the loss; `micro_batches`
and the configuration's sizes are read anew each step; `reset_activation_shape()` forgets the shapes that stages know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.pipe import schedule

from training.parallel.engine import Batches, Engine
from training.parallel.gradients import accumulate_in_place

Instruction = Callable[..., None]

_NAMES: Mapping[Any, str] = {
    schedule.LoadMicroBatch: "load",
    schedule.ForwardPass: "forward",
    schedule.BackwardPass: "backward",
    schedule.SendActivation: "send_activation",
    schedule.RecvActivation: "receive_activation",
    schedule.SendGrad: "send_gradient",
    schedule.RecvGrad: "receive_gradient",
    schedule.CommitP2P: "exchange",
    schedule.ReduceTiedGrads: "reduce_shared",
    schedule.ReduceGrads: "reduce",
    schedule.OptimizerStep: "optimizer",
}


class PipelinedEngine(Engine):
    def __init__(self, deepspeed_engine: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(deepspeed_engine, *arguments, **options)
        self._bf16 = isinstance(self._optimizer, BF16_Optimizer)
        self._open_gradients()
        calls = dict(deepspeed_engine._INSTRUCTION_MAP)
        self._deepspeed_step = calls[schedule.OptimizerStep]
        calls[schedule.ReduceTiedGrads] = self._reduce_shared
        timed = {kind: self._timed(_NAMES[kind], call) for kind, call in calls.items()}
        timed[schedule.OptimizerStep] = self._check_and_step
        deepspeed_engine._INSTRUCTION_MAP = timed

    def _run_evaluation(self, batches: Batches, micro_batches: int) -> float:
        return float(self._engine.eval_batch(batches, num_micro_batches=micro_batches))

    def _run_step(self, batches: Batches) -> float:
        return float(self._engine.train_batch(batches))

    def _cut_batch(self) -> None:
        super()._cut_batch()
        self._engine.micro_batch_size, self._engine.micro_batches = self.micro_sequences, self.micro_batches
        self._engine.reset_activation_shape()

    def _open_gradients(self) -> None:
        if self._bf16:
            accumulate_in_place(self._optimizer)
        for shared in self._engine.module.shared_weights:
            weight = shared.parameter
            shared.open_sinks(weight.fp32_gradient if self._bf16 else torch.zeros_like(weight, dtype=torch.float32))

    def _timed(self, name: str, call: Instruction) -> Instruction:
        def timed(engine: Any, **where: Any) -> None:
            with self.clock.during(name, where.get("phase", 0)):
                call(engine, **where)

        return timed

    def _reduce_shared(self, engine: Any) -> None:
        if self.context.data.size > 1 or self.context.pipe.size > 1:
            self._gate.probe(self._local_gradients())
        for shared in engine.module.shared_weights:
            total = shared.total()
            if not self._bf16:  # there, DeepSpeed takes gradients where autograd leaves them
                shared.parameter.grad = total.clone()
                total.zero_()

    def _local_gradients(self) -> list[Any]:
        """What this rank's passes have left, before anything is summed over ranks."""
        of_uses = [sink for shared in self.module.shared_weights for sink in shared.sinks.values()]
        if self._bf16:
            return [*self._optimizer.fp32_groups_gradients_flat, *of_uses]
        return [*(each.grad for each in self.module.parameters() if each.grad is not None), *of_uses]

    def _check_and_step(self, engine: Any) -> None:
        self._check(0.0 if engine.total_loss is None else engine.total_loss)
        with self.clock.during("optimizer"):
            self._deepspeed_step(engine)
