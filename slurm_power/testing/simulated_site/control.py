"""The site's back door for tests: what a technician, a fault or a bad day would do. One JSON object per line.

{"do": "set-local", "local": true}            somebody turns the key at the panel
{"do": "raise-alarm", "alarm": "OVER_TEMP"}   a name of SunSpec 701 Alrm
{"do": "clear-alarms"}
{"do": "silence", "unit": 2, "silent": true}  the device gets requests and never answers
{"do": "jump-soc", "stored_fraction": 0.2}
{"do": "set-scale", "unit": 1, "model": 701, "point": "W_SF", "exponent": 1}
{"do": "unimplement", "unit": 1, "model": 713, "point": "SoH"}
{"do": "add-building-load", "watts": 2000}
{"do": "truth"}
"""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slurm_power.errors import DeviceRefused, Unavailable
from slurm_power.testing.simulated_site.sunspec_map import bit_of

if TYPE_CHECKING:
    from slurm_power.testing.simulated_site.site import SimulatedSite


def act(site: SimulatedSite, order: dict[str, Any]) -> dict[str, Any]:
    """Carry out one order; the truth after it. Raise KeyError, TypeError or ValueError for one that makes no sense."""
    pcs = site.plant.pcs.pcs
    site.plant.advance()
    match order["do"]:
        case "set-local":
            pcs.local = bool(order["local"])
        case "raise-alarm":
            bit_of(701, "Alrm", order["alarm"])  # KeyError for a name SunSpec does not know
            pcs.alarms.add(order["alarm"])
        case "clear-alarms":
            pcs.reset_alarms()
        case "silence":
            change = site.bus.silent_units.add if order["silent"] else site.bus.silent_units.discard
            change(int(order["unit"]))
        case "jump-soc":
            pcs.battery.jump_to(float(order["stored_fraction"]))
        case "set-scale":
            site.bus.device(order["unit"]).map.set_scale(order["model"], order["point"], int(order["exponent"]))
        case "unimplement":
            site.bus.device(order["unit"]).map.unimplement(order["model"], order["point"])
        case "add-building-load":
            site.plant.extra_building_watts = float(order["watts"])
        case "truth":
            pass
        case unknown:
            raise ValueError(f"unknown order {unknown!r}")
    site.plant.refresh()
    return asdict(site.plant.truth)


async def serve_control(site: SimulatedSite, path: str | None) -> asyncio.Server | None:
    """Listen on a Unix socket that only its owner may use; None where the config names no socket."""
    if path is None:
        return None
    Path(path).unlink(missing_ok=True)

    async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            writer.write(json.dumps(_answer(site, line)).encode() + b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(on_client, path)
    Path(path).chmod(0o600)
    return server


def _answer(site: SimulatedSite, line: bytes) -> dict[str, Any]:
    try:
        return {"truth": act(site, json.loads(line))}
    except (KeyError, TypeError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


class SiteControl:
    """A test's hand on the back door."""

    def __init__(self, path: Path, *, timeout_s: float = 5.0) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def do(self, order: str, **values: object) -> dict[str, float]:
        """The truth after the order. Raise Unavailable without a site, DeviceRefused for a senseless order."""
        try:
            with socket.socket(socket.AF_UNIX) as line, line.makefile("rwb") as stream:
                line.settimeout(self._timeout_s)
                line.connect(str(self._path))
                stream.write(json.dumps({"do": order, **values}).encode() + b"\n")
                stream.flush()
                answer = json.loads(stream.readline() or b"{}")
        except OSError as cause:
            raise Unavailable(f"{self._path}: {cause}") from cause
        if "truth" not in answer:
            raise DeviceRefused(f"{order}: {answer.get('error', 'no answer')}")
        return dict(answer["truth"])
