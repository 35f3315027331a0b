"""Counts what DeepSpeed sends: activations between stages, gradients and weights over the data axis, tied gradients.

Relies on DeepSpeed 0.19: everything it sends goes through methods of the one backend object `deepspeed.comm.comm.cdb`.
Its own comms logger is not used: it knows no axis, and waits for the GPU around every call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import deepspeed

from training.parallel.counted import COUNTER

PIPE = "pipe"

_HANDED: Mapping[str, str] = {
    "all_reduce": "tensor",
    "broadcast": "tensor",
    "reduce": "tensor",
    "all_gather": "tensor",
    "all_gather_into_tensor": "input_tensor",
    "reduce_scatter_tensor": "input_tensor",
}
"""By method, the argument that this rank hands over."""

_BY_POSITION: Mapping[str, tuple[str, ...]] = {"all_reduce": ("tensor", "op", "group", "async_op")}
"""The one method whose arguments DeepSpeed does not name."""


@contextmanager
def counting(axis_of_group: Mapping[Any, str], active: Callable[[], bool]) -> Iterator[None]:
    """Add DeepSpeed's traffic to `training.parallel.counted.COUNTER` while `active`: on the axis of its group and under
    the method's name, or as "pipe.send" between stages. Groups that are not in the map are not counted."""
    backend = deepspeed.comm.comm.cdb
    try:
        for method in _HANDED:
            setattr(backend, method, _counted(getattr(backend, method), method, axis_of_group, active))
        backend.send = _counted_send(backend.send, active)
        backend.batch_isend_irecv = _counted_batch(backend.batch_isend_irecv, active)
        yield
    finally:
        for method in (*_HANDED, "send", "batch_isend_irecv"):
            backend.__dict__.pop(method, None)  # the class's own shows again


def _counted(call: Any, method: str, axis_of_group: Mapping[Any, str], active: Callable[[], bool]) -> Any:
    @wraps(call)
    def counted(*arguments: Any, **named: Any) -> Any:
        known = named | dict(zip(_BY_POSITION.get(method, ()), arguments, strict=False))
        axis = axis_of_group.get(known.get("group"))
        if axis is not None and active():
            COUNTER.add(axis, method, _bytes(known[_HANDED[method]]))
        return call(*arguments, **named)

    return counted


def _counted_send(call: Any, active: Callable[[], bool]) -> Any:
    @wraps(call)
    def counted(**named: Any) -> Any:
        if active():
            COUNTER.add(PIPE, "send", _bytes(named["tensor"]))
        return call(**named)

    return counted


def _counted_batch(call: Any, active: Callable[[], bool]) -> Any:
    @wraps(call)
    def counted(operations: list[Any]) -> Any:
        for operation in operations:
            if operation.op == "isend" and active():
                COUNTER.add(PIPE, "send", _bytes(operation.tensor))
        return call(operations)

    return counted


def _bytes(tensor: Any) -> int:
    return int(tensor.numel() * tensor.element_size())
