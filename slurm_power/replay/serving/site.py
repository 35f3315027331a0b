"""The instances of a replay on their servers: started, drained, lost, and what all that costs."""

from __future__ import annotations

from slurm_power.llm.fleet import LARGEST
from slurm_power.llm.instance_clock import InstanceClock
from slurm_power.llm.operating_point import full_chunk
from slurm_power.llm.request_class import RequestClass
from slurm_power.replay.serving.books import Books, Meter
from slurm_power.replay.serving.engine import Engine, ShardTables
from slurm_power.replay.serving.member import Member, Totals
from slurm_power.replay.serving.policies import SimulationConfig
from slurm_power.replay.serving.servers import Servers


class Site:
    def __init__(self, config: SimulationConfig, *, books: Books, meter: Meter) -> None:
        self.config, self.books, self.meter = config, books, meter
        self.engines: dict[int, Engine] = {}  # those that serve
        self.members: dict[int, Member] = {}
        self.starts = 0
        self._tables = {gpus: ShardTables(shard) for gpus, shard in config.real.shards.items()}
        self._servers = Servers(config.real, off_after_s=config.empty_server_off_s)
        self._numbers = 0
        self._gpu_s = self._server_s = self._host_joules = self._unallocated_joules = 0.0
        self._counted_s = 0.0

    def fill(self) -> None:
        """One instance of the largest degree after the other on every server, all of them serving."""
        config = self.config
        gpus = max(config.profile.shards)
        for _ in range(config.servers):
            self._servers.add(ready_s=0.0, stays_on=not config.policy.instances)
        for _ in range(config.servers * config.profile.gpus_per_server // gpus):
            self.start(LARGEST, gpus, 0.0).ready_s = 0.0
        self.come_and_go(0.0)

    def start(self, pool: RequestClass, gpus: int, now_s: float) -> Member:
        number = self._numbers
        self._numbers += 1
        server = self._servers.place(number, gpus, now_s=now_s)
        shard = self.config.profile.shard(gpus)
        within_s = self.config.fleet.iteration_s
        chunk = full_chunk(shard, within_s=within_s)
        ready_s = max(now_s, server.ready_s) + self.config.real.shard(gpus).startup_s
        engine = Engine(
            number, self._tables[gpus], chunk_tokens=chunk, books=self.books, meter=self.meter, now_s=ready_s
        )
        engine.prefill_tokens_per_s = chunk / within_s
        clock = None
        if self.config.policy.clock:
            clock = InstanceClock(shard, self.config.clock, self.config.slo)
        member = Member(engine, gpus, server, pool, clock, ready_s)
        self.members[number] = member
        if now_s > 0.0:
            self.starts += 1
            shard = self.config.real.shard(gpus)
            idle_s = ready_s - now_s - shard.startup_s
            self.meter.add(now_s, ready_s, shard.startup_joules + idle_s * shard.idle_watts)
        return member

    def drain(self, number: int) -> None:
        member = self.members[number]
        member.draining, member.engine.accepts = True, False

    def come_and_go(self, now_s: float) -> bool:
        """What is ready serves, what is drained is gone, servers that stay empty are off. Whether anything changed."""
        changed = False
        for number, member in list(self.members.items()):
            if not member.serving and now_s >= member.ready_s:
                member.serving = changed = True
                member.engine.idle_since_s = member.ready_s
                self.engines[number] = member.engine
            if member.draining and member.engine.requests == 0:
                member.engine.flush(now_s)
                self._servers.release(member.server, number, member.gpus, now_s=now_s)
                del self.members[number]
                self.engines.pop(number, None)
                changed = True
        self._servers.switch_off_empty(now_s)
        return changed

    def lose_server(self) -> list[int]:
        """It is gone at once. Returns the requests that had no token yet; the rest is lost to its caller."""
        books = self.books
        again: list[int] = []
        for number in self._servers.lose().instances:
            member = self.members.pop(number)
            self.engines.pop(number, None)
            for request in member.engine.evict():
                if books.first_token_s[request] < 0.0:
                    books.restart(request)
                    again.append(request)
                else:
                    books.lost += 1
        return again

    def count(self, now_s: float) -> None:
        """Hours and what stands around without an instance, up to now."""
        passed_s = now_s - self._counted_s
        if passed_s <= 0.0:
            return
        real = self.config.real
        self._gpu_s += passed_s * sum(member.gpus for member in self.members.values())
        self._server_s += passed_s * len(self._servers.on)
        self._host_joules += passed_s * real.host_watts * len(self._servers.on)
        idle_watts = next(iter(real.shards.values())).idle_watts / next(iter(real.shards))
        joules = passed_s * idle_watts * self._servers.free_gpus
        self._unallocated_joules += joules
        if joules:
            self.meter.add(self._counted_s, now_s, joules)
        self._counted_s = now_s

    def close(self) -> None:
        for member in self.members.values():
            member.engine.flush(self._counted_s)

    def totals(self, *, clock_changes: int) -> Totals:
        return Totals(
            gpu_s=self._gpu_s,
            server_s=self._server_s,
            host_joules=self._host_joules,
            unallocated_joules=self._unallocated_joules,
            starts=self.starts,
            boots=self._servers.boots,
            clock_changes=clock_changes,
        )
