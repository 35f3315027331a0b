"""Opens and closes the process groups of one plan. The only place that starts torch.distributed.

Relies on DeepSpeed 0.19: `PipelineParallelGrid` builds the groups of a (pipe, data, model) topology and is the "mpu"
that its engine asks; `deepspeed.utils.groups` finds the experts' groups by the name "ep_size_<n>".
"""

from __future__ import annotations

import contextlib
import datetime
import io
import itertools
import logging
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.runtime.pipe.topology import PipelineParallelGrid, PipeModelDataParallelTopology
from deepspeed.utils import groups as expert_groups

from training.errors import ConfigError, Unavailable, require
from training.parallel.context import Axis, ParallelContext

if TYPE_CHECKING:
    from training.parallel.plan import ParallelPlan

COLLECTIVE_TIMEOUT_S = 600.0
_LAUNCHER_KEYS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def open_groups(plan: ParallelPlan, *, timeout_s: float = COLLECTIVE_TIMEOUT_S) -> ParallelContext:
    """Join all ranks of `plan` and return where this one stands. RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
    MASTER_PORT come from the environment. gloo without a GPU, else NCCL.

    A collective whose peer is silent for `timeout_s` ends in an error, DeepSpeed's included. Raise ConfigError when the
    launcher started another number of ranks than the plan has, Unavailable when the others do not come in time.
    """
    _check_launch(plan)
    # Said once per rank by torch 2.13 of a call that DeepSpeed makes.
    warnings.filterwarnings("ignore", message="`torch.distributed.all_gather_into_tensor`", category=FutureWarning)
    # DeepSpeed would otherwise build a C++ extension with ninja in every rank at start: seconds to minutes, and a
    # compiler on the compute node. It speeds up an inference all-reduce that training never calls.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    try:
        with quiet():
            _join(datetime.timedelta(seconds=timeout_s))
            context = _context(plan)
            # Rank 0 keeps the rendezvous: were it to leave now, a rank that still joins a group would lose it.
            dist.barrier()
            return context
    except (dist.DistNetworkError, dist.DistStoreError) as cause:
        raise Unavailable(f"rendezvous at {os.environ['MASTER_ADDR']}: {_first_line(cause)}") from cause


def close_groups() -> None:
    """After it, another plan can be opened in this process. Needs no other rank. The rendezvous' socket stays."""
    if dist.is_initialized():
        deepspeed.comm.destroy_process_group()
    # DeepSpeed keeps a handle of the destroyed backend, and asks it again at the next start.
    deepspeed.comm.comm.cdb = None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """DeepSpeed prints its topology and partition, and logs every memory reading; keep only its errors."""
    log = deepspeed.utils.logger
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(max(level, logging.WARNING))


def on_gpu() -> bool:
    return bool(torch.cuda.is_available())


def local_device() -> Any:
    """The torch device of this rank: with a GPU, the one that LOCAL_RANK names."""
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu() else torch.device("cpu")


def _check_launch(plan: ParallelPlan) -> None:
    missing = [key for key in _LAUNCHER_KEYS if key not in os.environ]
    if missing:
        raise ConfigError(f"{missing[0]} = unset: the launcher must export {', '.join(_LAUNCHER_KEYS)}")
    require(
        int(os.environ["WORLD_SIZE"]) == plan.world_size,
        "WORLD_SIZE",
        os.environ["WORLD_SIZE"],
        f"the plan needs {plan.world_size} ranks",
    )


def _join(timeout: datetime.timedelta) -> None:
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if on_gpu():
        torch.cuda.set_device(local_device())
    dist.init_process_group(
        "nccl" if on_gpu() else "gloo",
        store=_store(rank, world_size, timeout),
        rank=rank,
        world_size=world_size,
        timeout=timeout,
        device_id=local_device() if on_gpu() else None,
    )
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)  # wraps what is there
    # It opens groups of its own, otherwise with torch's 10 or 30 minutes.
    deepspeed.comm.comm.cdb.new_group = lambda ranks: dist.new_group(ranks, timeout=timeout)


_stores: dict[tuple[str, str], Any] = {}
_opened = itertools.count()


def _store(rank: int, world_size: int, timeout: datetime.timedelta) -> Any:
    """One socket for all plans of a process, and a name space for each: a rank that opens the next plan early would
    otherwise write into the old server while its owner takes it down."""
    address = (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"])
    if address not in _stores:
        host, port = address
        # As torch's own env:// does: a launcher that says so has opened the server already.
        serves = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        _stores[address] = dist.TCPStore(host, int(port), world_size, is_master=serves, timeout=timeout)
    _stores[address].set_timeout(timeout)
    return dist.PrefixStore(f"plan-{next(_opened)}", _stores[address])


def build_grid(plan: ParallelPlan) -> Any:
    """DeepSpeed's view of the plan, with process groups of its own. Collective."""
    with quiet():
        return PipelineParallelGrid(
            topology=PipeModelDataParallelTopology(num_pp=plan.pipeline, num_mp=plan.tensor, num_dp=plan.data)
        )


def _context(plan: ParallelPlan) -> ParallelContext:
    grid = build_grid(plan)
    here = grid.topology().get_coord(dist.get_rank())
    expert, expert_data = _expert_axes(plan, grid, data_rank=here.data)
    return ParallelContext(
        pipe=_axis("pipe", here.pipe, plan.pipeline, grid.pp_proc_group),
        data=_axis("data", here.data, plan.data, grid.dp_proc_group),
        tensor=_axis("tensor", here.model, plan.tensor, grid.slice_proc_group),
        expert=expert,
        expert_data=expert_data,
    )


def _expert_axes(plan: ParallelPlan, grid: Any, *, data_rank: int) -> tuple[Axis, Axis]:
    """Neighbours on the data axis share one set of experts; DeepSpeed's optimisers look their groups up by name."""
    if plan.expert == 1:
        return Axis("expert"), _axis("expert_data", data_rank, plan.data, grid.dp_proc_group)
    expert_groups.mpu = grid
    expert_groups._create_expert_data_and_model_parallel(plan.expert, mpu=grid)
    name = expert_group_name(plan.expert)
    return (
        _axis("expert", data_rank % plan.expert, plan.expert, expert_groups._get_expert_parallel_group(name)),
        _axis(
            "expert_data",
            data_rank // plan.expert,
            plan.data // plan.expert,
            expert_groups._get_expert_data_parallel_group(name),
        ),
    )


def expert_group_name(expert: int) -> str:
    return f"ep_size_{expert}"


def _axis(name: str, rank: int, size: int, group: Any) -> Axis:
    return Axis(name, rank, size, group if size > 1 else None)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
