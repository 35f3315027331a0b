"""The one place that decides a dtype: for every operation its compute, accumulate, output and wire precision.

The three diagrams (MoE, MLA, MTP) are the table below; `describe()` prints them. Model code names an operation and asks
the policy; it never names a dtype. "FP8 query / key / value" is read as: their projections multiply in FP8 and what the
backward pass keeps of them is stored in FP8; softmax(QK^T)V itself runs in BF16 with FP32 accumulation, as in the
DeepSeek-V3 report (arXiv 2412.19437, section 3.3). Pure: this file does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from training.errors import ConfigError, require


class Precision(StrEnum):
    FP8 = "fp8"
    BF16 = "bf16"
    FP32 = "fp32"


FP8, BF16, FP32 = Precision.FP8, Precision.BF16, Precision.FP32


class Kind(StrEnum):
    TENSOR = "tensor"  # a boundary: only its output dtype counts
    GEMM = "gemm"
    STORED = "stored"  # rounded to `compute`, kept so for the backward pass, used as `output`
    CORE = "core"  # softmax(QK^T)V
    NORM = "norm"
    WIRE = "wire"
    STATE = "state"  # lives in the optimiser


@dataclass(frozen=True, slots=True)
class Op:
    """One box of a diagram."""

    kind: Kind
    compute: Precision
    """Grid of the operands of a GEMM; dtype in which anything else is computed or kept."""

    output: Precision = BF16
    accumulate: Precision = FP32
    wire: Precision | None = None
    """What goes over the network, if the operation communicates."""


def _gemm(compute: Precision, output: Precision = BF16) -> Op:
    return Op(Kind.GEMM, compute, output)


_TENSOR = Op(Kind.TENSOR, BF16)
_NORM = Op(Kind.NORM, FP32)

DIAGRAM: Mapping[str, Op] = MappingProxyType(
    {
        # Mixture of experts
        "moe.input": _TENSOR,
        "moe.router": _gemm(BF16),
        "moe.hidden": _TENSOR,
        "moe.dispatch": Op(Kind.WIRE, FP8, wire=FP8),
        "moe.expert": _gemm(FP8),
        "moe.combine": Op(Kind.WIRE, BF16, wire=BF16),
        "moe.output": _TENSOR,
        # Multi-head latent attention
        "mla.input": _TENSOR,
        "mla.hidden": _TENSOR,
        "mla.norm": _NORM,
        "mla.kv_compress": _gemm(BF16),
        "mla.q_proj": _gemm(FP8),
        "mla.kv_proj": _gemm(FP8),
        "mla.query": Op(Kind.STORED, FP8),
        "mla.key": Op(Kind.STORED, FP8),
        "mla.value": Op(Kind.STORED, FP8),
        "mla.core": Op(Kind.CORE, BF16),
        "mla.o_proj": _gemm(FP8),
        "mla.output": _TENSOR,
        # Multi-token prediction; its transformer block's own operations are those above
        "mtp.embedding": _TENSOR,
        "mtp.norm": _NORM,
        "mtp.projection": _gemm(BF16),
        "mtp.block": _TENSOR,
        "mtp.hidden": _TENSOR,
        # What the diagrams leave open: dense layers, a Llama-style attention, the two ends of the model
        "embedding": _TENSOR,
        "block.norm": _NORM,
        "ffn.linear": _gemm(FP8),
        "attention.qkv_proj": _gemm(FP8),
        "attention.query": Op(Kind.STORED, FP8),
        "attention.key": Op(Kind.STORED, FP8),
        "attention.value": Op(Kind.STORED, FP8),
        "attention.core": Op(Kind.CORE, BF16),
        "attention.o_proj": _gemm(FP8),
        "head": _gemm(BF16, output=FP32),
        "loss": Op(Kind.TENSOR, FP32, output=FP32),
        "optimizer.master": Op(Kind.STATE, FP32, output=FP32),
        "optimizer.gradient": Op(Kind.STATE, FP32, output=FP32),
        "optimizer.moments": Op(Kind.STATE, BF16, output=BF16),
    }
)
"""Weight gradients accumulate in FP32 ("optimizer.gradient"); input gradients have the operation's output dtype."""

Observer = Callable[[str, str, object], None]
"""Called with operation, role ("compute", "accumulate", "output", "wire", "stored", "input_gradient",
"weight_gradient") and the tensor really used."""


def _nothing(op: str, role: str, tensor: object) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionPolicy:
    """Which table holds, and the choices inside FP8 that the table leaves open."""

    name: str
    table: Mapping[str, Op]
    backend: str = "auto"
    """"auto", "emulate", "scaled_mm" or "triton": who multiplies FP8 operands."""

    power_of_two_scales: bool = False
    weight_gradient: Precision = FP8
    """Grid of the weight gradient's operands where the table says FP8: FP8 or BF16."""

    observer: Observer = field(default=_nothing, compare=False, repr=False)

    def __post_init__(self) -> None:
        require(self.backend in BACKENDS, "precision.backend", self.backend, f"must be one of {', '.join(BACKENDS)}")
        require(
            self.weight_gradient in (FP8, BF16),
            "precision.weight_gradient",
            self.weight_gradient,
            "must be fp8 or bf16",
        )

    def op(self, name: str) -> Op:
        """Raise ConfigError for a name that is not in the table: a typo must not pick a dtype."""
        try:
            return self.table[name]
        except KeyError:
            raise ConfigError(f"operation = {name}: not in the precision table") from None

    @property
    def parameter(self) -> Precision:
        """What the model's parameters are kept in between optimiser steps (the master copy is FP32 in any case)."""
        return self.table["embedding"].output


BACKENDS = ("auto", "emulate", "scaled_mm", "triton")


def _raised(table: Mapping[str, Op], change: Mapping[Precision, Precision]) -> Mapping[str, Op]:
    def up(precision: Precision) -> Precision:
        return change.get(precision, precision)

    return MappingProxyType(
        {
            name: replace(
                op, compute=up(op.compute), output=up(op.output), wire=None if op.wire is None else up(op.wire)
            )
            for name, op in table.items()
        }
    )


TABLES: Mapping[str, Mapping[str, Op]] = MappingProxyType(
    {
        "fp8": DIAGRAM,
        "bf16": _raised(DIAGRAM, {FP8: BF16}),
        "fp32": _raised(DIAGRAM, {FP8: FP32, BF16: FP32}),  # the control: no rounding at all
    }
)


def policy(
    name: str, *, backend: str = "auto", power_of_two_scales: bool = False, weight_gradient: str = "fp8"
) -> PrecisionPolicy:
    """Raise ConfigError for an unknown name."""
    require(name in TABLES, "precision.policy", name, f"must be one of {', '.join(TABLES)}")
    require(weight_gradient in ("fp8", "bf16"), "precision.weight_gradient", weight_gradient, "must be fp8 or bf16")
    return PrecisionPolicy(
        name=name,
        table=TABLES[name],
        backend=backend,
        power_of_two_scales=power_of_two_scales,
        weight_gradient=Precision(weight_gradient),
    )


def describe(table: Mapping[str, Op] = DIAGRAM) -> str:
    """The table as the diagrams: one block after the other, one line an operation."""
    lines: list[str] = []
    title = None
    for name, op in table.items():
        head, _, rest = name.partition(".")
        if head != title:
            lines += ["", _TITLES.get(head, head)] if _TITLES.get(head, head) not in lines else []
            title = head
        lines.append(f"  {name if head not in _DIAGRAMS else rest:<14} {_boxes(op)}")
    return "\n".join(lines).strip() + "\n"


_DIAGRAMS = ("moe", "mla", "mtp")
_TITLES = {
    "moe": "MoE, mixture of experts",
    "mla": "MLA, multi-head latent attention",
    "mtp": "MTP, multi-token prediction",
} | dict.fromkeys(("embedding", "block", "ffn", "attention", "head", "loss", "optimizer"), "Around them")


def _boxes(op: Op) -> str:
    match op.kind:
        case Kind.GEMM:
            return f"{op.compute} x {op.compute}, accumulate {op.accumulate} -> {op.output}"
        case Kind.WIRE:
            return f"{op.wire} on the wire -> {op.output}"
        case Kind.STORED:
            return f"{op.compute} stored -> {op.output}"
        case Kind.CORE:
            return f"{op.compute}, accumulate {op.accumulate} -> {op.output}"
        case Kind.NORM:
            return f"{op.compute} -> {op.output}"
        case Kind.TENSOR | Kind.STATE:
            return str(op.output)
