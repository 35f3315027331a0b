"""Opens torch.distributed for a model of several ranks. With one rank nothing here is called."""

from __future__ import annotations

import datetime
import os
from typing import Any

import torch
import torch.distributed as dist

from job_wrappers.serving.errors import RankLost, require
from job_wrappers.serving.ranks.seat import Seat

COLLECTIVE_TIMEOUT_S = 300.0
"""A collective waits this long for a peer that lives and is silent; a dead one is noticed at once."""


def open_groups(seat: Seat, device: torch.device) -> tuple[Any, Any]:
    """(the tensor-parallel group of this rank, the store of the rendezvous). RANK, WORLD_SIZE, MASTER_ADDR and
    MASTER_PORT come from the environment. NCCL for tensors on GPUs, gloo for others."""
    size = os.environ.get("WORLD_SIZE", "1")
    require(size == str(seat.world_size), "WORLD_SIZE", size, f"the model is split over {seat.world_size} ranks")
    timeout = datetime.timedelta(seconds=COLLECTIVE_TIMEOUT_S)
    try:
        store = _store(seat, timeout)
        on_gpu = device.type == "cuda"
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=dist.PrefixStore("serving", store),
            rank=seat.rank,
            world_size=seat.world_size,
            timeout=timeout,
            device_id=device if on_gpu else None,
        )
        groups = [dist.new_group(_stage_ranks(seat, stage), timeout=timeout) for stage in range(seat.pipeline)]
        dist.barrier()  # whoever leaves at once must not take the rendezvous from those still joining
    except (dist.DistNetworkError, dist.DistStoreError) as cause:
        raise RankLost(f"rendezvous at {os.environ.get('MASTER_ADDR')}: {str(cause).splitlines()[0]}") from cause
    return groups[seat.pp_rank] if seat.tensor > 1 else None, store


def close_groups() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def send(tensor: torch.Tensor, to_rank: int) -> None:
    dist.send(tensor.contiguous(), to_rank)


def receive(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, from_rank: int) -> torch.Tensor:
    tensor = torch.empty(shape, dtype=dtype, device=device)
    dist.recv(tensor, from_rank)
    return tensor


def _store(seat: Seat, timeout: datetime.timedelta) -> Any:
    # As torch's own env:// does: a launcher that says so has opened the server already.
    serves = seat.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(address, port, None, is_master=serves, timeout=timeout, wait_for_workers=False)


def _stage_ranks(seat: Seat, stage: int) -> list[int]:
    return list(range(stage * seat.tensor, (stage + 1) * seat.tensor))
