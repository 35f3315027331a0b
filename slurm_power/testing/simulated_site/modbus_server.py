"""The site's bus: one Modbus TCP server, one unit per device. The only file that knows pymodbus' server API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from pymodbus.constants import ExcCodes
from pymodbus.exceptions import NoSuchIdException
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from slurm_power.errors import Unavailable
from slurm_power.testing.simulated_site.sunspec_map import BASE_ADDRESS, IllegalAddress, IllegalValue, SunSpecMap


class BusDevice(Protocol):
    @property
    def map(self) -> SunSpecMap: ...

    def write(self, address: int, values: list[int]) -> None: ...


class ModbusBus:
    """Call from the event loop it serves in."""

    def __init__(self, devices: dict[int, BusDevice], *, before_request: Callable[[], object]) -> None:
        self._devices = devices
        self._before_request = before_request
        self._server: ModbusTcpServer | None = None
        self.silent_units: set[int] = set()  # they get requests and never answer
        self.writes: list[tuple[int, int, int]] = []  # (unit, address, registers) of every accepted write

    async def start(self, host: str, port: int) -> int:
        """Listen; port 0 takes a free one. The port in use; raise Unavailable when it cannot be had."""
        units = [self._unit(unit, device) for unit, device in self._devices.items()]
        self._server = ModbusTcpServer(units, address=(host, port), ignore_missing_devices=True)
        try:
            await self._server.serve_forever(background=True)
        except RuntimeError as cause:
            raise Unavailable(f"cannot listen on {host}:{port}") from cause
        assert isinstance(self._server.transport, asyncio.Server)
        return int(self._server.transport.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.shutdown()  # type: ignore[no-untyped-call]
            self._server = None

    def device(self, unit: int) -> BusDevice:
        return self._devices[unit]

    def _unit(self, unit: int, device: BusDevice) -> SimDevice:
        async def on_request(
            function: int,
            start: int,
            address: int,
            count: int,
            registers: list[int],
            written: list[int] | list[bool] | None,
        ) -> ExcCodes | None:
            if unit in self.silent_units:
                raise NoSuchIdException  # with ignore_missing_devices: no answer at all
            self._before_request()
            if written is not None:
                refusal = self._write(unit, device, address, [int(value) for value in written])
                if refusal is not None:
                    return refusal
            current = device.map.registers()
            registers[: len(current)] = current
            if written is not None:
                # What the device made of the write, not the write itself, is what pymodbus must keep.
                written[:] = registers[address - start : address - start + count]  # type: ignore[assignment]
            return None

        block = SimData(BASE_ADDRESS, values=device.map.registers(), datatype=DataType.REGISTERS)
        return SimDevice(unit, simdata=[block], action=on_request)

    def _write(self, unit: int, device: BusDevice, address: int, values: list[int]) -> ExcCodes | None:
        try:
            device.write(address, values)
        except IllegalAddress:
            return ExcCodes.ILLEGAL_ADDRESS
        except IllegalValue:
            return ExcCodes.ILLEGAL_VALUE
        self.writes.append((unit, address, len(values)))
        return None
