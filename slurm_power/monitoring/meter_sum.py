"""Several meters as one: the sum of what hangs side by side, as old as its oldest part. Pure."""

from __future__ import annotations

from collections.abc import Collection

from slurm_power.monitoring.readings import GridReading


def sum_of(parts: Collection[GridReading]) -> GridReading:
    """What one part feeds in, another may draw: only the difference passes the point above them."""
    if not parts:
        raise ValueError("a sum of no meters is not zero")
    net_watts = sum(part.import_watts - part.export_watts for part in parts)
    return GridReading(
        import_watts=max(0.0, net_watts),
        export_watts=max(0.0, -net_watts),
        taken_at_s=min(part.taken_at_s for part in parts),
    )
