"""What we borrow from a GPU and how it goes back. Pure; the journal's records are made and read here.

A loan is written down before the first write to a knob and struck out after the found value is back.
NVML has no question for "which clock lock is set", so a clock is given back as "no lock".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from slurm_power.gpu.caps import EffectiveCap, EffectiveClock, same_cap

Record = Mapping[str, str | int | float | bool | None]
"""One line of the journal (ports/journal.py has the same type; pure code may not import it)."""


class Knob(StrEnum):
    CAP = "cap"
    CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class Loan:
    """One knob of one GPU as it was found."""

    uuid: str
    knob: Knob
    found: float | None  # watts or MHz; None: no clock lock
    default_watts: float
    min_watts: float
    max_watts: float
    boot_id: str
    job_id: int | None  # the job on the GPU when we borrowed; None: a lease or the safe cap


@dataclass(frozen=True, slots=True)
class Keep:
    """Nothing to do."""


@dataclass(frozen=True, slots=True)
class Borrow:
    """Write the loan down, then set the knob."""

    value: float


@dataclass(frozen=True, slots=True)
class Change:
    """The loan stands; set the knob."""

    value: float


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Set the found value (None: unlock), then strike out the loan."""

    value: float | None


Step = Keep | Borrow | Change | GiveBack


def cap_step(wanted: EffectiveCap, *, enforced_watts: float, loan: Loan | None, last_set_watts: float | None) -> Step:
    """`last_set_watts`: our last write to the board, None if unknown (new, or the agent has just started).

    A cap that somebody else lowered below ours stays: we never raise over another's hand; giving back
    still returns what was found.
    """
    if wanted.source == "found":
        return Keep() if loan is None else GiveBack(loan.found)
    if loan is None:
        return (
            Keep() if enforced_watts <= wanted.watts or same_cap(enforced_watts, wanted.watts) else Borrow(wanted.watts)
        )
    if same_cap(enforced_watts, wanted.watts):
        return Keep()
    lowered_by_other = enforced_watts < wanted.watts and last_set_watts == wanted.watts
    return Keep() if lowered_by_other else Change(wanted.watts)


def clock_step(wanted: EffectiveClock, *, loan: Loan | None, last_set_mhz: float | None) -> Step:
    if wanted.mhz is None:
        return Keep() if loan is None else GiveBack(None)
    if loan is None:
        return Borrow(wanted.mhz)
    return Keep() if last_set_mhz == wanted.mhz else Change(wanted.mhz)


def loan_record(loan: Loan) -> Record:
    return {
        "kind": "loan",
        "uuid": loan.uuid,
        "knob": loan.knob.value,
        "found": loan.found,
        "default_watts": loan.default_watts,
        "min_watts": loan.min_watts,
        "max_watts": loan.max_watts,
        "boot_id": loan.boot_id,
        "job_id": loan.job_id,
    }


def read_loans(records: Iterable[Record], *, boot_id: str) -> tuple[tuple[Loan, ...], tuple[str, ...]]:
    """Loans of this boot, oldest first, and a line for every record that cannot be read.

    A board forgets its limits when the machine restarts, so loans of another boot are void.
    """
    loans: list[Loan] = []
    unreadable: list[str] = []
    for record in records:
        if record.get("kind") != "loan":
            continue
        try:
            loan = _loan(record)
        except (KeyError, TypeError, ValueError) as cause:
            unreadable.append(f"journal: unreadable loan ({cause!r})")
            continue
        if loan.boot_id == boot_id:
            loans.append(loan)
    return tuple(loans), tuple(unreadable)


def _loan(record: Record) -> Loan:
    knob = Knob(str(record["knob"]))
    found = record["found"]
    job_id = record["job_id"]
    if knob is Knob.CAP and found is None:
        raise ValueError("a cap without its found value")
    return Loan(
        uuid=str(record["uuid"]),
        knob=knob,
        found=None if found is None else float(found),
        default_watts=_number(record["default_watts"]),
        min_watts=_number(record["min_watts"]),
        max_watts=_number(record["max_watts"]),
        boot_id=str(record["boot_id"]),
        job_id=None if job_id is None else int(job_id),
    )


def _number(value: str | float | bool | None) -> float:
    if value is None:
        raise ValueError("a number is missing")
    return float(value)
