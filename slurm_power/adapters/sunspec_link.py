"""One SunSpec device on Modbus TCP: pymodbus carries the registers, pysunspec2's model definitions explain them.

pysunspec2's own TCP client is not used: it sends every request as transaction 0 and takes whatever answers,
so an answer that comes after its time-out is taken for that of the next request.
"""

from __future__ import annotations

import logging
import math
import struct
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import sunspec2
from pymodbus.client import ModbusTcpClient
from pymodbus.constants import ExcCodes
from pymodbus.exceptions import ConnectionException, ModbusException
from pymodbus.pdu import ModbusPDU
from sunspec2 import device, mb

from slurm_power.errors import DeviceRefused, Unavailable

BASE_ADDRESSES = (40_000, 0, 50_000)  # SunSpec Device Information Model: where a map may start
MARK = (0x5375, 0x6E53)  # "SunS"
LONGEST_READ = 125  # registers in one request: Modbus Application Protocol 1.1b3, 6.3
MOST_MODELS = 64  # a device that lists more is not telling its models
LARGEST_SCALE = 10  # of sunssf: SunSpec Device Information Model
TRY_LATER = {ExcCodes.ACKNOWLEDGE, ExcCodes.DEVICE_BUSY, ExcCodes.GATEWAY_PATH_UNAVIABLE, ExcCodes.GATEWAY_NO_RESPONSE}

T = TypeVar("T")

# pysunspec2 would look for definitions in the working directory first; only the shipped ones may count.
device.set_model_defs_path([str(Path(sunspec2.__file__).parent / "models")])
# Every failure leaves here as an exception with the device's name; the library's own lines would only repeat it.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)


class _PeerGone(Unavailable):
    """The connection is refused or was closed; asking again on a new one makes sense."""


class SunSpecModel:
    """One model as read at one moment, with the scale factors of that same moment."""

    def __init__(self, address: int, points: Any) -> None:
        self.address = address
        self._model = points

    def has(self, name: str) -> bool:
        return self.number(name) is not None

    def number(self, name: str) -> float | None:
        """In the point's unit; None when it, or its scale factor, is not implemented or makes no sense."""
        point = self._model.points.get(name)
        if point is None or not isinstance(point.value, int | float):
            return None
        factor = self.scale_factor(name)
        value = None if factor is None else point.value * factor
        return value if value is not None and math.isfinite(value) else None

    def scale_factor(self, name: str) -> float | None:
        """What one step of this point is worth; 1 for a point without a scale factor."""
        scale_point = self._model.points[name].pdef.get("sf")
        if scale_point is None:
            return 1.0
        exponent = scale_point if isinstance(scale_point, int) else self._model.points[scale_point].value
        if exponent is None or abs(exponent) > LARGEST_SCALE:
            return None
        return float(10.0**exponent)

    def set_bits(self, name: str) -> tuple[str, ...]:
        """Names of the bits set in a bitfield; a bit without a name becomes `NAME_BIT_n`."""
        point = self._model.points.get(name)
        if point is None or point.value is None:
            return ()
        symbols = {int(one["value"]): str(one["name"]) for one in point.pdef.get("symbols", [])}
        set_bits = [bit for bit in range(16 * point.len) if point.value >> bit & 1]
        return tuple(symbols.get(bit, f"{name.upper()}_BIT_{bit}") for bit in set_bits)

    def registers_between(self, first: str, last: str, changes: dict[str, float]) -> tuple[int, list[int]]:
        """Address and registers of the neighbouring points from `first` to `last`, changed by `changes`
        (in each point's unit) and otherwise as they were read.
        Raise DeviceRefused for a value the point cannot hold."""
        names = list(self._model.points)
        run = names[names.index(first) : names.index(last) + 1]
        data = b"".join(self._encoded(name, changes.get(name)) for name in run)
        registers = [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]
        return self.address + self._model.points[first].offset, registers

    def _encoded(self, name: str, value: float | None) -> bytes:
        point = self._model.points[name]
        if value is None:
            return bytes(point.get_mb())
        factor = self.scale_factor(name)
        if factor is None:
            raise DeviceRefused(f"{name}: its scale factor is not implemented")
        raw = round(value / factor)
        try:
            data = bytes(point.info.to_data(raw, 2 * point.len))
        except struct.error as cause:
            raise DeviceRefused(f"{name} = {value:g}: does not fit the point ({cause})") from cause
        if not point.info.is_impl(raw):
            raise DeviceRefused(f"{name} = {value:g}: would read as not implemented")
        return data


class SunSpecLink:
    """Finds the models once per connection; every operation ends within `timeout_s`. Safe between threads."""

    def __init__(self, *, name: str, host: str, port: int, unit_id: int, timeout_s: float) -> None:
        self.name = f"{name} {host}:{port} unit {unit_id}"
        self._unit_id = unit_id
        self._timeout_s = timeout_s
        # retries=0: the operation below decides what is worth a second try, inside one deadline.
        self._client = ModbusTcpClient(host, port=port, timeout=timeout_s, retries=0)
        self._models: dict[int, tuple[int, int]] | None = None  # model id -> (address, registers)
        self._deadline_s = 0.0
        self._lock = threading.Lock()

    def operate(self, work: Callable[[], T]) -> T:
        """Run reads and writes of one operation under one deadline. A connection that had died while idle is
        opened again once. Raise Unavailable when the device does not answer in time or answers nonsense."""
        with self._lock:
            self._deadline_s = time.monotonic() + self._timeout_s
            idle_connection = self._client.connected
            try:
                return self._attempt(work)
            except _PeerGone:
                if not idle_connection:
                    raise
            return self._attempt(work)

    def _attempt(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except Unavailable:
            self._hang_up()  # a late answer must not meet the next request
            raise

    def models(self) -> frozenset[int]:
        """Ids of the models the device has; scanned again after every reconnection."""
        if self._models is None or not self._client.connected:
            self._models = self._scan()
        return frozenset(self._models)

    def read_model(self, model_id: int) -> SunSpecModel:
        """Read one whole model, scale factors included. Only inside `operate`."""
        if model_id not in self.models():
            raise Unavailable(f"{self.name}: has no SunSpec model {model_id}")
        assert self._models is not None
        address, length = self._models[model_id]
        data = self._read(address, length)
        if int.from_bytes(data[:2], "big") != model_id:
            raise Unavailable(f"{self.name}: model {model_id} is no longer where it was")  # scan again next time
        return SunSpecModel(address, device.Model(model_id=model_id, model_len=length - 2, data=data))

    def write(self, address: int, registers: Sequence[int]) -> None:
        """One 0x10 request. Raise DeviceRefused when the device says no. Only inside `operate`."""
        answer = self._ask(lambda: self._client.write_registers(address, list(registers), device_id=self._unit_id))
        if answer.isError():
            error = Unavailable if answer.exception_code in TRY_LATER else DeviceRefused
            raise error(f"{self.name}: refuses the write to {address}: {_said(answer)}")

    def close(self) -> None:
        with self._lock:
            self._hang_up()

    def _hang_up(self) -> None:
        self._client.close()  # type: ignore[no-untyped-call]
        self._models = None

    def _scan(self) -> dict[int, tuple[int, int]]:
        address = self._base_address() + len(MARK)
        found: dict[int, tuple[int, int]] = {}
        for _ in range(MOST_MODELS):
            model_id = self._word(address)
            if model_id == mb.SUNS_END_MODEL_ID:
                return found
            length = self._word(address + 1)  # apart from the id: some devices give the end model no length
            found.setdefault(model_id, (address, length + 2))
            address += length + 2
        raise Unavailable(f"{self.name}: its list of SunSpec models does not end")

    def _base_address(self) -> int:
        for address in BASE_ADDRESSES:
            answer = self._ask_for(address, len(MARK))
            if not answer.isError() and tuple(answer.registers) == MARK:
                return address
        raise Unavailable(f"{self.name}: no SunSpec map at {BASE_ADDRESSES}")

    def _word(self, address: int) -> int:
        return int.from_bytes(self._read(address, 1), "big")

    def _read(self, address: int, count: int) -> bytes:
        data = bytearray()
        for start in range(0, count, LONGEST_READ):
            length = min(LONGEST_READ, count - start)
            answer = self._ask_for(address + start, length)
            if answer.isError() or len(answer.registers) != length:
                raise Unavailable(f"{self.name}: cannot read {length} registers at {address + start}: {_said(answer)}")
            data += b"".join(int(word).to_bytes(2, "big") for word in answer.registers)
        return bytes(data)

    def _ask_for(self, address: int, count: int) -> ModbusPDU:
        return self._ask(lambda: self._client.read_holding_registers(address, count=count, device_id=self._unit_id))

    def _ask(self, request: Callable[[], ModbusPDU]) -> ModbusPDU:
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise Unavailable(f"{self.name}: no answer within {self._timeout_s:g} s")
        self._client.comm_params.timeout_connect = left_s
        try:
            return request()
        except ConnectionException as cause:
            raise _PeerGone(f"{self.name}: no connection") from cause
        except (ModbusException, OSError) as cause:
            raise Unavailable(f"{self.name}: no answer within {self._timeout_s:g} s: {cause}") from cause


def _said(answer: ModbusPDU) -> str:
    """The device's Modbus exception in words."""
    known = {int(code): code.name.lower().replace("_", " ") for code in ExcCodes}
    return known.get(answer.exception_code, f"exception {answer.exception_code}") if answer.isError() else "cut short"
