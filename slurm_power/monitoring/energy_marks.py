"""From marks to stretches: who held a GPU from when to when, and what it used meanwhile. Pure.

An agent writes a mark when a job gets or leaves a GPU, at its start and stop, and every few minutes. Between two marks
of one life of the agent its own count is exact. Over a restart the board's counter joins them, or the samples in
between. Order and length come from a clock that nobody sets; the wall clock of a mark says only where it is put.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from slurm_power.monitoring.energy import NOTHING, EnergyRules, Moment, Piece, Used, pieces_of


@dataclass(frozen=True, slots=True)
class Count:
    """What an agent had counted when it wrote a mark."""

    life_wall_s: float  # when it began to count, by a clock that nobody sets; names the life
    up_s: float  # since then
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
    def steady_s(self) -> float:
        """By a clock that nobody sets, if there is one."""
        return self.wall_s if self.count is None else self.count.life_wall_s + self.count.up_s


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
        begin_s, end_s = max(self.from_wall_s, since_wall_s), min(self.to_wall_s, until_wall_s)
        if end_s <= begin_s:
            return None
        if (begin_s, end_s) == (self.from_wall_s, self.to_wall_s):
            return self
        used = self.used.part((end_s - begin_s) / self.length_s)
        return replace(self, from_wall_s=begin_s, to_wall_s=end_s, used=used)


_TICK_S = 1.0
"""A sample may come so long before the mark of the same tick."""

Samples = Callable[[str, float, float], Sequence[Moment]]
"""Of one GPU (uuid), between two times."""

Pair = tuple[Mark, Mark]
"""Neighbours, by the wall clock of the first."""

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
        in_order = sorted(by_gpu[uuid], key=lambda mark: mark.steady_s)
        pairs = [(before, _by_its_clock(before, after)) for before, after in pairwise(in_order)]
        for pair in pairs:
            found += _between(*pair, samples=samples, others=pairs, ends=ends or {}, rules=rules)
        last = in_order[-1]
        if tail_until_wall_s is not None and last.wall_s < tail_until_wall_s:
            seen = _told_apart(last, None, samples(uuid, last.wall_s, tail_until_wall_s), pairs)
            pieces = pieces_of([_moment(last), *seen], rules=rules)
            found += [Stretch(last.node, uuid, one.from_s, one.to_s, last.holder, one.used) for one in pieces]
    return found


def _by_its_clock(before: Mark, after: Mark) -> Mark:
    """`after` at its time by the wall clock as it stood at `before`."""
    counted = before.count is not None and after.count is not None
    return replace(after, wall_s=before.wall_s + after.steady_s - before.steady_s) if counted else after


def _between(
    before: Mark, after: Mark, *, samples: Samples, others: Sequence[Pair], ends: Ends, rules: EnergyRules
) -> list[Stretch]:
    one_life = before.count is not None and after.count is not None
    if one_life and before.count.life_wall_s == after.count.life_wall_s:  # type: ignore[union-attr]
        used = after.count.used - before.count.used  # type: ignore[union-attr]
        return [Stretch(before.node, before.uuid, before.wall_s, after.wall_s, before.holder, used)]
    if after.wall_s <= before.wall_s:
        return []
    seen = _told_apart(before, after, samples(before.uuid, before.wall_s, after.wall_s), others)
    pieces = pieces_of([_moment(before), *seen, _moment(after)], rules=rules) or [_blank(before, after)]
    return [
        Stretch(before.node, before.uuid, piece.from_s, piece.to_s, holder, piece.used)
        for piece, holder in _shared_out(pieces, before, after, until_s=_held_until(before, after, seen, ends))
    ]


def _told_apart(before: Mark, after: Mark | None, seen: Sequence[Moment], pairs: Sequence[Pair]) -> list[Moment]:
    """Samples between two marks. The wall clock, set back, showed their time twice: the board's counter tells which
    are meant. Where it was reset, or is missing, none are taken from such a time.
    (No driver is reloaded while an agent samples.)"""
    least, most = _board(before), None if after is None else _board(after)
    placed = least is not None and most is not None and least <= most
    others = [] if placed else [(one.wall_s - _TICK_S, other.wall_s) for one, other in pairs if one is not before]
    found = []
    for one in seen:
        joules = one.energy_joules
        early = joules is not None and least is not None and joules < least
        late = joules is not None and most is not None and joules > most and placed
        if not early and not late and not any(begin_s <= one.at_s < end_s for begin_s, end_s in others):
            found.append(one)
    return found


def _board(mark: Mark) -> float | None:
    return None if mark.count is None else mark.count.energy_joules


def _moment(mark: Mark) -> Moment:
    return Moment(mark.wall_s, _board(mark), None)


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
