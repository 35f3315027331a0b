"""Servers of eight GPUs: which are on, what stands on them, which one takes a new instance."""

from __future__ import annotations

from dataclasses import dataclass, field

from slurm_power.llm.profile import ServingProfile


@dataclass(slots=True)
class Server:
    number: int
    free_gpus: int
    ready_s: float  # booted
    instances: set[int] = field(default_factory=set)
    empty_since_s: float = 0.0
    stays_on: bool = False


class Servers:
    def __init__(self, profile: ServingProfile, *, off_after_s: float) -> None:
        self._profile, self._off_after_s = profile, off_after_s
        self.on: dict[int, Server] = {}
        self._numbers = 0
        self.boots = 0

    def add(self, *, ready_s: float, stays_on: bool) -> Server:
        server = Server(self._numbers, self._profile.gpus_per_server, ready_s, stays_on=stays_on)
        self.on[server.number] = server
        self._numbers += 1
        return server

    def place(self, instance: int, gpus: int, *, now_s: float) -> Server:
        """Where the fewest GPUs stay free; a server is booted if none has room."""
        fitting = [server for server in self.on.values() if server.free_gpus >= gpus]
        if fitting:
            server = min(fitting, key=lambda one: (one.free_gpus, one.number))
        else:
            self.boots += 1
            server = self.add(ready_s=now_s + self._profile.boot_s, stays_on=False)
        server.free_gpus -= gpus
        server.instances.add(instance)
        return server

    def release(self, server: Server, instance: int, gpus: int, *, now_s: float) -> None:
        server.instances.discard(instance)
        server.free_gpus += gpus
        if not server.instances:
            server.empty_since_s = now_s

    def lose(self) -> Server:
        """The one with most on it."""
        server = max(self.on.values(), key=lambda one: (len(one.instances), -one.number))
        del self.on[server.number]
        return server

    def switch_off_empty(self, now_s: float) -> None:
        for server in list(self.on.values()):
            idle = not server.instances and now_s - max(server.empty_since_s, server.ready_s) >= self._off_after_s
            if idle and not server.stays_on:
                del self.on[server.number]

    @property
    def free_gpus(self) -> int:
        return sum(server.free_gpus for server in self.on.values())
