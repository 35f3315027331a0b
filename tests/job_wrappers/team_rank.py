"""What one rank does in a test of the team: meet, add up, leave. Runs in a process of its own."""

from __future__ import annotations

import os

from job_wrappers.training.place import local_places
from job_wrappers.training.team import Team


def meet_and_add(world_size: int, key: str) -> tuple[float, list[int], str]:
    """The sum of all ranks + 1, the ranks whose joules rank 0 heard, and gloo's interface."""
    import torch
    import torch.distributed

    place = local_places(world_size, key=key, cpus=1)[int(os.environ["RANK"])]
    heard: list[int] = []
    team = Team(place, on_joules=lambda rank, joules: heard.append(rank))
    os.environ.update(team.meet(timeout_s=60.0))
    torch.distributed.init_process_group("gloo")
    total = torch.tensor([place.rank + 1.0])
    torch.distributed.all_reduce(total)
    torch.distributed.destroy_process_group()
    team.send_joules({"GPU-a": 1.0})
    team.part()  # on rank 0 this waits for the ends of the other processes
    return float(total), sorted(heard), os.environ["GLOO_SOCKET_IFNAME"]
