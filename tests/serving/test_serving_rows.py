"""Norms and gates in one pass: PyTorch's numbers, for shapes our C suits and for those it does not."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from job_wrappers.serving.kernels.rows import gated, rms_norm  # noqa: E402


@pytest.mark.parametrize("rows", [0, 1, 3, 70])
@pytest.mark.parametrize("width", [16, 96, 40])
def test_a_norm_is_that_of_torch(rows: int, width: int) -> None:
    x, weight = 5 * torch.randn(rows, width + 16)[:, :width], torch.randn(width)
    expected = torch.nn.functional.rms_norm(x, (width,), weight, 1e-5)
    torch.testing.assert_close(rms_norm(x, weight, 1e-5), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rows", [0, 1, 3, 70])
@pytest.mark.parametrize("width", [16, 96, 40])
def test_a_gate_is_that_of_torch(rows: int, width: int) -> None:
    x = 8 * torch.randn(rows, 2 * width)
    x[:, 0] = 0.0
    if rows:
        x[0, 1], x[0, 2] = 200.0, -200.0
    expected = torch.nn.functional.silu(x[:, :width]) * x[:, width:]
    torch.testing.assert_close(gated(x), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_other_types_and_more_dimensions_go_to_torch(name: str) -> None:
    dtype = getattr(torch, name)
    x, weight = torch.randn(3, 5, 32, dtype=dtype), torch.randn(32, dtype=dtype)
    assert torch.equal(rms_norm(x, weight, 1e-5), torch.nn.functional.rms_norm(x, (32,), weight, 1e-5))
    gate, up = x.chunk(2, dim=-1)
    assert torch.equal(gated(x), torch.nn.functional.silu(gate) * up)


def test_a_number_that_is_none_stays_none_in_its_row_alone() -> None:
    x = torch.randn(4, 32)
    x[2, 3] = float("nan")
    for result in (rms_norm(x, torch.ones(32), 1e-5), gated(x)):
        assert result[2].isnan().any()
        assert result[[0, 1, 3]].isfinite().all()
