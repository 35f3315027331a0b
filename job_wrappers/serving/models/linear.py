"""Matrix products with weights as they lie in memory: plain, packed for a CPU, or E4M3 codes that are decoded each time
they are used."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from job_wrappers.serving.kernels.packed_matrix import PackedMatrix
from training.fp8.qtensor import QTensor, dequantise


class Linear:
    """weight [out, in], bias [out]"""

    __slots__ = ("bias", "weight")

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)

    def rows(self, ids: Tensor) -> Tensor:
        """Of the weight: the embedding of tokens, where it is tied to the head."""
        return functional.embedding(ids, self.weight)


class ScaledLinear:
    """codes [out, in], scale [out, in / 128]. Half the memory of BF16, at the price of decoding the whole weight for
    every product."""

    __slots__ = ("bias", "codes", "scale")

    def __init__(self, codes: Tensor, scale: Tensor, bias: Tensor | None = None) -> None:
        self.codes, self.scale, self.bias = codes, scale, bias

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, dequantise(QTensor(self.codes, self.scale)).to(x.dtype), self.bias)


AnyLinear = Linear | PackedMatrix | ScaledLinear
