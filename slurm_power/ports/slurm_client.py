"""Slurm, asked once for everybody: one call returns all jobs, one all nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from slurm_power.relocation.jobs import Job, LicensePool, LicenseReservation, Node


class SlurmClient(Protocol):
    """Every method raises Unavailable when slurmctld cannot be asked in time,
    and DeviceRefused (with Slurm's own words) when it says no to one action."""

    def version(self) -> str: ...

    def jobs(self) -> Sequence[Job]:
        """All jobs slurmctld still holds, pending, running and recently finished."""
        ...

    def nodes(self) -> Sequence[Node]: ...

    def license_pools(self) -> Mapping[str, LicensePool]: ...

    def license_reservations(self) -> Sequence[LicenseReservation]:
        """Reservations that hold licences, ours and others'."""
        ...

    def create_reservation(self, reservation: LicenseReservation) -> None: ...

    def update_reservation(self, reservation: LicenseReservation) -> None: ...

    def delete_reservation(self, name: str) -> None:
        """Deleting a reservation that is already gone is not an error."""
        ...

    def update_job(
        self,
        job_id: int,
        *,
        begin_wall_s: float | None = None,
        licenses: Mapping[str, int] | None = None,
        admin_comment: str | None = None,
    ) -> None:
        """Change what is given, in one request, leave the rest. `begin_wall_s` in the past means "now"."""
        ...

    def requeue(self, job_id: int) -> None: ...

    def cancel(self, job_id: int) -> None: ...
