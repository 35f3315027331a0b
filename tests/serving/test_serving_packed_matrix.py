"""Our own product with a packed weight: right for any shape, and the same for a row whatever its company."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from job_wrappers.serving.kernels import c_library  # noqa: E402
from job_wrappers.serving.kernels.packed_matrix import packed  # noqa: E402
from job_wrappers.serving.kernels.shelf import Shelf  # noqa: E402


def _packed(outputs: int, inputs: int, *, bias: bool = False):  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(outputs * 1000 + inputs)
    weight = torch.randn(outputs, inputs, generator=generator)
    offset = torch.randn(outputs, generator=generator) if bias else None
    matrix = packed(weight, offset)
    if matrix is None:
        pytest.skip("our C does not run here")
    return matrix, weight, offset


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 11, 12, 13, 25, 64])
@pytest.mark.parametrize(
    ("outputs", "inputs", "bias"), [(1, 1, True), (31, 7, False), (33, 48, True), (128, 96, False)]
)
def test_a_product_is_that_of_torch(rows: int, outputs: int, inputs: int, bias: bool) -> None:
    matrix, weight, offset = _packed(outputs, inputs, bias=bias)
    x = torch.randn(rows, inputs)
    expected = torch.nn.functional.linear(x.double(), weight.double(), None if offset is None else offset.double())
    torch.testing.assert_close(matrix(x).double(), expected, atol=1e-5, rtol=1e-5)


def test_rows_need_not_be_neighbours() -> None:
    matrix, weight, _ = _packed(40, 16)
    wide = torch.randn(9, 50)
    for x in (wide[:, 3:19], wide[:, ::2][:, :16], wide[::2, :16]):
        torch.testing.assert_close(matrix(x), x @ weight.T, atol=1e-5, rtol=1e-5)


def test_a_row_comes_out_the_same_in_any_company() -> None:
    matrix, _, _ = _packed(70, 96)
    x = torch.randn(40, 96)
    together = matrix(x)
    for rows in range(1, 30):
        assert torch.equal(matrix(x[5 : 5 + rows]), together[5 : 5 + rows])


def test_only_fp32_on_a_cpu_is_packed() -> None:
    assert packed(torch.ones(4, 4, dtype=torch.bfloat16)) is None
    assert packed(torch.ones(4, 4, device="meta")) is None


def test_without_a_compiler_there_is_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert c_library.c_library.__wrapped__("matrix") is None


def test_what_does_not_compile_is_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken.c").write_text("int broken(")
    monkeypatch.setattr(c_library, "SOURCES", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert c_library.c_library.__wrapped__("broken") is None
    assert not list((tmp_path / "cache").rglob("*.so"))


def test_a_folder_that_others_may_write_is_not_loaded_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "slurm-power" / "kernels"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert c_library._folder() != folder


def test_weights_of_a_model_lie_one_after_the_other_and_none_in_another() -> None:
    shelf = Shelf()
    rooms = [shelf.room(numbers).fill_(i) for i, numbers in enumerate([5, 3000, 17, 20 * 1024 * 1024, 8])]
    assert all((room == i).all() and room.data_ptr() % 64 == 0 for i, room in enumerate(rooms))


def test_a_matrix_outlives_the_shelf_it_lies_on() -> None:
    weight = torch.randn(64, 32)
    matrix = packed(weight, room=Shelf().room)
    if matrix is None:
        pytest.skip("our C does not run here")
    gc.collect()
    x = torch.randn(3, 32)
    torch.testing.assert_close(matrix(x), x @ weight.T, atol=1e-5, rtol=1e-5)
