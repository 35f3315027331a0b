"""What the tests of the model run, in one process or on each rank of several."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist

from training.matmul import torch_dtype
from training.model.config import ModelConfig
from training.model.decoder import Decoder, loss
from training.model.hf_names import named_shards
from training.model.initialise import initialise
from training.model.moe import Router, update_router_bias
from training.parallel.context import SINGLE, Axis, ParallelContext
from training.parallel.counted import COUNTER
from training.parallel.expert import combine, dispatch, plan_route
from training.parallel.tensor import ColumnLinear, RowLinear, copy_to_tensor_axis
from training.precision import policy

SEED = 7


@dataclass(slots=True)
class Outcome:
    """Of one forward and backward pass on one rank."""

    loss: float
    logits: Any
    gradients: dict[str, Any]
    """By Hugging Face name: this rank's piece of each."""

    pieces: dict[str, tuple[slice, ...]]
    """By the same names: where in the whole tensor that is."""

    traffic: dict[str, dict[str, int]]


def random_tokens(config: ModelConfig, *, sequences: int = 2, length: int = 128, seed: int = 1) -> Any:
    """int64 [sequences, length + 1]"""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, config.vocab_size, (sequences, length + 1), generator=generator)


def build(config: ModelConfig, policy_name: str, context: ParallelContext = SINGLE, *, seed: int = SEED) -> Decoder:
    module = Decoder(config, policy(policy_name, backend="emulate"), context)
    initialise(module, config, seed)
    return module


def pass_once(module: Decoder, tokens: Any, context: ParallelContext = SINGLE) -> Outcome:
    """`tokens` int64 [sequences, length + 1]"""
    COUNTER.reset()
    outputs = module(tokens[:, :-1])
    value = loss(outputs, tokens[:, 1:], module.config, context)
    value.backward()
    shards = list(named_shards(module))
    return Outcome(
        loss=value.item(),
        logits=outputs.streams.detach(),
        gradients={s.hf_name: s.of(s.tensor.grad).float() for s in shards if s.tensor.grad is not None},
        pieces={s.hf_name: s.part.piece for s in shards},
        traffic=COUNTER.bytes_by_name,
    )


def open_axes(*, tensor: int = 1, expert: int = 1) -> ParallelContext:
    """Ranks over (data, tensor), tensor fastest; the expert axis is a part of the data axis."""
    dist.init_process_group("gloo")
    world, rank = dist.get_world_size(), dist.get_rank()
    data = world // tensor

    def axis(name: str, members: list[list[int]]) -> Axis:
        found = Axis(name)
        for ranks in members:
            group = dist.new_group(ranks)  # every rank must make every group
            if rank in ranks:
                found = Axis(name, ranks.index(rank), len(ranks), group)
        return found

    columns = [[d * tensor + t for d in range(data)] for t in range(tensor)]
    return ParallelContext(
        tensor=axis("tensor", [[d * tensor + t for t in range(tensor)] for d in range(data)]),
        data=axis("data", columns),
        expert=axis("expert", [c[i : i + expert] for c in columns for i in range(0, data, expert)]),
    )


def model_on_ranks(config: ModelConfig, policy_name: str, cuts: dict[str, int], tokens: list[Any]) -> Outcome:
    """Each data rank computes its own entry of `tokens`."""
    context = open_axes(**cuts)
    try:
        return pass_once(build(config, policy_name, context), tokens[context.data.rank], context)
    finally:
        dist.destroy_process_group()


def column_and_row_on_ranks(policy_name: str, x: Any, columns: Any, rows: Any) -> tuple[Any, ...]:
    """x [tokens, 256] through a column-cut and a row-cut weight; outputs and gradients."""
    context = open_axes(tensor=2)
    try:
        chosen = policy(policy_name, backend="emulate")
        column = ColumnLinear([("c", 512)], 256, op="ffn.linear", policy=chosen, context=context)
        row = RowLinear("r", 512, 256, op="ffn.linear", policy=chosen, context=context)
        for linear, whole in ((column, columns), (row, rows)):
            (part,) = linear.weight.parts
            linear.weight.data.copy_(whole[part.piece])
        x = x.to(column.weight.dtype).requires_grad_()
        inner = column(copy_to_tensor_axis(x, context))
        outer = row(inner)
        outer.backward(torch.ones_like(outer))
        return inner.detach(), outer.detach(), x.grad, column.weight.grad, row.weight.grad
    finally:
        dist.destroy_process_group()


def loud(config: ModelConfig) -> ModelConfig:
    """With first values three times as large, so that logits are of order one and differences show."""
    return replace(config, initializer_range=0.06)


def updated_bias_on_ranks(config: ModelConfig, tokens: list[Any], cuts: dict[str, int]) -> list[Any]:
    """Every router's bias after two micro-batches and one update."""
    context = open_axes(**cuts)
    try:
        module = build(config, "fp32", context)
        for _ in range(2):
            pass_once(module, tokens[context.data.rank], context)
        update_router_bias(module, context, speed=0.01)
        return [router.e_score_correction_bias for router in module.modules() if isinstance(router, Router)]
    finally:
        dist.destroy_process_group()


def there_and_back_on_ranks(counts: list[list[int]], policy_name: str) -> tuple[Any, ...]:
    """Rows that name sender and expert, sent to the experts and home; `counts[rank][expert]`."""
    context = open_axes(expert=len(counts))
    try:
        rank, experts = context.expert.rank, len(counts[0])
        chosen = policy(policy_name)
        ids = torch.arange(experts).repeat_interleave(torch.tensor(counts[rank]))
        rows = (100.0 * rank + ids).unsqueeze(1).expand(-1, 128).to(torch_dtype(chosen.parameter)).requires_grad_()
        route = plan_route(torch.tensor(counts[rank]), context)
        COUNTER.reset()
        sent = dispatch(rows, route, chosen, context)
        back = combine(sent * 2, route, chosen, context)
        (back * ids.unsqueeze(1)).sum().backward()
        return (
            sent[:, 0].tolist(),
            route.rows_per_expert,
            back[:, 0].tolist(),
            rows.grad[:, 0].tolist(),
            COUNTER.bytes_by_name,
        )
    finally:
        dist.destroy_process_group()
