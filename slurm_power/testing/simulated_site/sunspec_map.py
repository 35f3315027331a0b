"""The register map of one SunSpec device, laid out by the official model definitions that pysunspec2 ships.

Values go in and come out in engineering units; scale factors are applied here and may change at run time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sunspec2 import device, mb

BASE_ADDRESS = 40_000
MARK = b"SunS"
END_MODEL = (mb.SUNS_END_MODEL_ID, 0)

PointName = tuple[int, str]  # (model id, point)
Value = float | int | str


class IllegalAddress(Exception):
    """Outside the map, or a point that is read-only."""


class IllegalValue(Exception):
    """Part of a wider point, or a value the device does not take."""


class SunSpecMap:
    def __init__(self, model_ids: Sequence[int]) -> None:
        self._models = {model_id: device.Model(model_id=model_id) for model_id in model_ids}
        self._start: dict[int, int] = {}
        self._points: dict[int, tuple[int, Any]] = {}  # register offset -> (model id, point)
        self._unimplemented: set[PointName] = set()
        offset = len(MARK) // 2
        for model_id, model in self._models.items():
            model.points["ID"].value = model_id
            model.points["L"].value = model.len - 2
            self._start[model_id] = offset
            for point in _all_points(model):
                self._points[offset + point.offset] = (model_id, point)
            offset += model.len

    def set(self, model_id: int, values: Mapping[str, Value | None]) -> None:
        """Change points; None reads as "not implemented". Values beyond a point's range stop at its end."""
        points = self._models[model_id].points
        for name, value in values.items():
            hidden = (model_id, name) in self._unimplemented
            points[name].value = None if hidden or value is None else _raw(points, points[name], value)

    def set_scale(self, model_id: int, scale_point: str, exponent: int) -> None:
        """Change a scale factor; the values that use it follow at their next `set`."""
        if scale_point not in self._models[model_id].points or not -10 <= exponent <= 10:
            raise KeyError(f"{model_id}.{scale_point} = {exponent}")
        self._models[model_id].points[scale_point].value = exponent

    def scale(self, model_id: int, scale_point: str) -> int:
        return int(self._models[model_id].points[scale_point].value)

    def unimplement(self, model_id: int, name: str) -> None:
        """From now on this point reads as "not implemented"."""
        self._models[model_id].points[name].value = None
        self._unimplemented.add((model_id, name))

    def implements(self, model_id: int, name: str) -> bool:
        return (model_id, name) not in self._unimplemented

    def registers(self) -> list[int]:
        """The whole device, from `SunS` to the end model."""
        data = bytearray(MARK)
        for model in self._models.values():
            data += model.get_mb()
        words = memoryview(bytes(data)).cast("H")
        return [_swapped(word) for word in words] + list(END_MODEL)

    def __len__(self) -> int:
        return len(MARK) // 2 + sum(int(model.len) for model in self._models.values()) + len(END_MODEL)

    def decode_write(self, address: int, values: Sequence[int]) -> dict[PointName, float | None]:
        """What a write means, in engineering units; None where it writes "not implemented".
        Raise IllegalAddress or IllegalValue; nothing is changed here."""
        data = b"".join(int(value).to_bytes(2, "big") for value in values)
        offset, end = address - BASE_ADDRESS, address - BASE_ADDRESS + len(values)
        changes: dict[PointName, float | None] = {}
        while offset < end:
            if offset not in self._points:
                raise IllegalAddress(f"register {BASE_ADDRESS + offset}")
            model_id, point = self._points[offset]
            if point.pdef.get("access") != "RW":
                raise IllegalAddress(f"{model_id}.{point.pdef['name']} is read-only")
            if offset + point.len > end:
                raise IllegalValue(f"{model_id}.{point.pdef['name']} written in part")
            raw = point.info.data_to(data[: 2 * point.len])
            known = point.info.is_impl(raw)
            changes[(model_id, point.pdef["name"])] = raw * _factor(point) if known else None
            data, offset = data[2 * point.len :], offset + point.len
        return changes


def bit_of(model_id: int, point: str, symbol: str) -> int:
    """Position of a named bit in a bitfield point. Raise KeyError for a name the model does not know."""
    for entry in device.get_model_def(model_id)["group"]["points"]:
        if entry["name"] == point:
            return int({one["name"]: one["value"] for one in entry["symbols"]}[symbol])
    raise KeyError(point)


def finest_scale(largest: float, *, limit: int, finest: int = -3) -> int:
    """The smallest exponent with which `largest` still fits below `limit`."""
    exponent = finest
    while largest / 10.0**exponent > limit:
        exponent += 1
    return exponent


def _all_points(group: Any) -> list[Any]:
    points = list(group.points.values())
    for inner in group.groups.values():
        for one in inner if isinstance(inner, list) else [inner]:
            points += _all_points(one)
    return points


def _factor(point: Any) -> float:
    name = point.pdef.get("sf")
    scale = None if name is None else point.model.points[name].value
    return 1.0 if scale is None else float(10.0**scale)


def _raw(points: Any, point: Any, value: Value) -> Value:
    if isinstance(value, str):
        return value
    raw = round(value / _factor(point))
    low, high = _RANGES.get(point.pdef["type"], (0, 0xFFFF_FFFF_FFFF_FFFE))
    return max(low, min(raw, high))


_RANGES = {
    "int16": (-32_767, 32_767),
    "uint16": (0, 65_534),
    "int32": (-(2**31) + 1, 2**31 - 1),
    "uint32": (0, 2**32 - 2),
    "acc32": (0, 2**32 - 1),
    "sunssf": (-10, 10),
}


def _swapped(word: int) -> int:
    return int.from_bytes(word.to_bytes(2, "little"), "big")
