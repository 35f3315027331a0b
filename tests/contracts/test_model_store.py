"""Every model store: what was saved comes back, nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from slurm_power.adapters.model_store_files import FileModelStore
from slurm_power.errors import Unavailable
from slurm_power.ports.model_store import ModelStore
from slurm_power.testing.memory_model_store import MemoryModelStore


@pytest.fixture(params=["files", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ModelStore:
    made: dict[str, Callable[[], ModelStore]] = {
        "files": lambda: FileModelStore(tmp_path),
        "memory": MemoryModelStore,
    }
    return made[request.param]()


def test_the_last_text_saved_under_a_name_comes_back(store: ModelStore) -> None:
    assert store.load("building") is None
    store.save("building", "old")
    store.save("building", "new ä")
    store.save("it", "other")
    assert store.load("building") == "new ä"


def test_a_file_store_says_what_it_cannot_read_or_write(tmp_path: Path) -> None:
    (tmp_path / "forecast_it.json").write_bytes(b"\xff\xfe")
    with pytest.raises(Unavailable, match=r"forecast_it\.json: cannot read"):
        FileModelStore(tmp_path).load("it")
    with pytest.raises(Unavailable, match="cannot write"):
        FileModelStore(tmp_path / "missing").save("it", "text")
    (tmp_path / "forecast_b.json.new").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unavailable, match="cannot write"):
        FileModelStore(tmp_path).save("b", "text")
