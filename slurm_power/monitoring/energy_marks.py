"""From marks to stretches: who held a GPU from when to when, and what it used meanwhile. Pure.

An agent writes a mark when a job gets or leaves a GPU, at its start and stop, and every few minutes. Between two marks
of one life of the agent its own count is exact, whatever the wall clock did. Over a restart the board's counter joins
them, or the samples in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from slurm_power.monitoring.energy import NOTHING, EnergyRules, Moment, Piece, Used, pieces_of


@dataclass(frozen=True, slots=True)
class Count:
    """What an agent had counted when it wrote a mark."""

    life_wall_s: float  # when it began to count; names the life
    up_s: float  # since then, by a clock that nobody sets
    used: Used
    energy_joules: float | None  # the board's own counter


@dataclass(frozen=True, slots=True)
class Holder:
    job_id: int
    uid: int


@dataclass(frozen=True, slots=True)
class Mark:
    node: str
    uuid: str
    wall_s: float
    holder: Holder | None  # from here on; None: nobody
    count: Count | None  # None: written by an agent that did not count
    begins: bool = False  # a job got the GPU here, so nobody needs to have held it just before

    @property
    def order(self) -> tuple[float, float]:
        return (self.count.life_wall_s, self.count.up_s) if self.count is not None else (self.wall_s, 0.0)


@dataclass(frozen=True, slots=True)
class Stretch:
    node: str
    uuid: str
    from_wall_s: float
    to_wall_s: float
    holder: Holder | None
    used: Used

    @property
    def length_s(self) -> float:
        return self.to_wall_s - self.from_wall_s

    def within(self, since_wall_s: float, until_wall_s: float) -> Stretch | None:
        """The part of it between two times, its energy spread evenly; None when there is none."""
        if self.length_s <= 0:  # the clock was set back meanwhile: the energy is real all the same
            return self if since_wall_s <= self.from_wall_s < until_wall_s else None
        begin_s, end_s = max(self.from_wall_s, since_wall_s), min(self.to_wall_s, until_wall_s)
        if end_s <= begin_s:
            return None
        if (begin_s, end_s) == (self.from_wall_s, self.to_wall_s):
            return self
        used = self.used.part((end_s - begin_s) / self.length_s)
        return replace(self, from_wall_s=begin_s, to_wall_s=end_s, used=used)


Samples = Callable[[str, float, float], Sequence[Moment]]
"""Of one GPU (uuid), between two times."""

Ends = Mapping[int, Sequence[float]]
"""By job id: when Slurm says that it ended, every attempt."""


def stretches_of(
    marks: Iterable[Mark],
    *,
    samples: Samples,
    ends: Ends | None = None,
    rules: EnergyRules | None = None,
    tail_until_wall_s: float | None = None,
) -> list[Stretch]:
    """Marks of any GPUs in any order. `tail_until_wall_s`: up to then also what was used since the last marks, as far
    as there are samples."""
    by_gpu: dict[str, list[Mark]] = {}
    for mark in marks:
        by_gpu.setdefault(mark.uuid, []).append(mark)
    rules = rules or EnergyRules()
    found: list[Stretch] = []
    for uuid in sorted(by_gpu):
        in_order = sorted(by_gpu[uuid], key=lambda mark: mark.order)
        for before, after in pairwise(in_order):
            found += _between(before, after, samples=samples, ends=ends or {}, rules=rules)
        last = in_order[-1]
        if tail_until_wall_s is not None and last.wall_s < tail_until_wall_s:
            seen = _later(last, samples(uuid, last.wall_s, tail_until_wall_s))
            pieces = pieces_of([_moment(last), *seen], rules=rules)
            found += [Stretch(last.node, uuid, one.from_s, one.to_s, last.holder, one.used) for one in pieces]
    return found


def _between(before: Mark, after: Mark, *, samples: Samples, ends: Ends, rules: EnergyRules) -> list[Stretch]:
    one_life = before.count is not None and after.count is not None
    if one_life and before.count.life_wall_s == after.count.life_wall_s:  # type: ignore[union-attr]
        used = after.count.used - before.count.used  # type: ignore[union-attr]
        to_wall_s = max(after.wall_s, before.wall_s)  # the wall clock may have been set back
        return [Stretch(before.node, before.uuid, before.wall_s, to_wall_s, before.holder, used)]
    if after.wall_s <= before.wall_s:
        return []
    seen = _later(before, samples(before.uuid, before.wall_s, after.wall_s))
    pieces = pieces_of([_moment(before), *seen, _moment(after)], rules=rules) or [_blank(before, after)]
    return [
        Stretch(before.node, before.uuid, piece.from_s, piece.to_s, holder, piece.used)
        for piece, holder in _shared_out(pieces, before, after, until_s=_held_until(before, after, seen, ends))
    ]


def _later(mark: Mark, seen: Sequence[Moment]) -> list[Moment]:
    """Without samples that are older than the mark, whatever their time says: the wall clock may have been set back.
    Their counter had not come so far. (No driver is reloaded while an agent samples.)"""
    counted = None if mark.count is None else mark.count.energy_joules
    return [one for one in seen if counted is None or one.energy_joules is None or one.energy_joules >= counted]


def _moment(mark: Mark) -> Moment:
    return Moment(mark.wall_s, mark.count.energy_joules if mark.count is not None else None, None)


def _blank(before: Mark, after: Mark) -> Piece:
    return Piece(before.wall_s, after.wall_s, Used(unknown_s=after.wall_s - before.wall_s))


def _held_until(before: Mark, after: Mark, seen: Sequence[Moment], ends: Ends) -> float:
    """Until when the job of the first mark held the GPU: as Slurm says; else as long as an agent still sampled it,
    for that agent would have told of the end."""
    if before.holder is None:
        return before.wall_s
    if after.holder == before.holder and not after.begins:
        return after.wall_s
    known = [end for end in ends.get(before.holder.job_id, ()) if before.wall_s <= end <= after.wall_s]
    if known:
        return min(known)
    if before.count is None:
        return after.wall_s  # an agent that wrote begin and end only: they enclose the job
    return max((moment.at_s for moment in seen), default=before.wall_s)


def _shared_out(
    pieces: Iterable[Piece], before: Mark, after: Mark, *, until_s: float
) -> Iterable[tuple[Piece, Holder | None]]:
    """The pieces, one that lies across `until_s` cut there."""
    for piece in pieces:
        if piece.to_s <= until_s:
            yield piece, before.holder
        elif piece.from_s >= until_s:
            yield piece, None
        else:
            share = (until_s - piece.from_s) / (piece.to_s - piece.from_s)
            yield Piece(piece.from_s, until_s, piece.used.part(share)), before.holder
            yield Piece(until_s, piece.to_s, piece.used.part(1 - share)), None


def total(stretches: Iterable[Stretch]) -> Used:
    return sum((stretch.used for stretch in stretches), NOTHING)
