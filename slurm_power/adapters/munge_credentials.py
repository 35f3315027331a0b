"""Credentials from the cluster's munge daemon, through libmunge. See munge.h for the calls and error numbers."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from slurm_power.errors import NotPermitted, Unavailable
from slurm_power.ports.credentials import Opened

_OPT_TTL = 4
_OPT_SOCKET = 8
_BAD_CREDENTIALS = frozenset(range(8, 19))
"""EMUNGE_BAD_CRED .. EMUNGE_CRED_UNAUTHORIZED: malformed, forged, expired, from the future, replayed, for another."""

_CREDENTIAL_CHARACTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=:")
_MAX_SEALED_BYTES = 2 * 1024 * 1024


class MungeCredentials:
    """One context per call, so several threads may use one object."""

    def __init__(self, *, socket: Path | None = None, ttl_s: int = 60) -> None:
        self._socket = socket
        self._ttl_s = ttl_s

    def seal(self, payload: bytes) -> bytes:
        library = _library()
        sealed = ctypes.c_void_p()
        with self._context() as context:
            code = library.munge_encode(ctypes.byref(sealed), context, payload, len(payload))
            detail = _detail(context)
        try:
            _check(code, detail)
            return ctypes.string_at(sealed) if sealed.value else b""
        finally:
            _free(sealed)

    def open(self, sealed: bytes) -> Opened:
        if not 0 < len(sealed) <= _MAX_SEALED_BYTES or not _CREDENTIAL_CHARACTERS.issuperset(sealed):
            raise NotPermitted("munge: Invalid credential format")
        library = _library()
        payload, length = ctypes.c_void_p(), ctypes.c_int()
        uid, gid = ctypes.c_uint32(), ctypes.c_uint32()
        with self._context() as context:
            code = library.munge_decode(
                sealed, context, ctypes.byref(payload), ctypes.byref(length), ctypes.byref(uid), ctypes.byref(gid)
            )
            detail = _detail(context)
        try:
            _check(code, detail)
            content = ctypes.string_at(payload, length.value) if payload.value else b""
            return Opened(content, uid.value, gid.value)
        finally:
            _free(payload)

    @contextmanager
    def _context(self) -> Iterator[ctypes.c_void_p]:
        library = _library()
        context = ctypes.c_void_p(library.munge_ctx_create())
        if not context.value:
            raise Unavailable("munge: out of memory")
        try:
            _check(library.munge_ctx_set(context, _OPT_TTL, ctypes.c_int(self._ttl_s)))
            if self._socket is not None:
                _check(library.munge_ctx_set(context, _OPT_SOCKET, ctypes.c_char_p(str(self._socket).encode())))
            yield context
        finally:
            library.munge_ctx_destroy(context)


def _detail(context: ctypes.c_void_p) -> str:
    """What exactly the last call of this context met: which socket, which error."""
    words: bytes | None = _library().munge_ctx_strerror(context)
    return "" if words is None else words.decode("utf-8", "replace")


def _check(code: int, detail: str = "") -> None:
    if code == 0:
        return
    words = _library().munge_strerror(code).decode("ascii", "replace")
    if code in _BAD_CREDENTIALS:
        raise NotPermitted(f"munge: {words}")
    raise Unavailable(f"munge: {words}" + (f": {detail}" if detail and detail != words else ""))


def _free(pointer: ctypes.c_void_p) -> None:
    if pointer.value:
        _libc().free(pointer)


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.free.argtypes = [ctypes.c_void_p]
    libc.free.restype = None
    return libc


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libmunge.so.2")
    except OSError as cause:
        raise Unavailable(f"munge: its library is not installed: {cause}") from cause
    pointer = ctypes.POINTER
    library.munge_ctx_create.argtypes = []
    library.munge_ctx_create.restype = ctypes.c_void_p
    library.munge_ctx_destroy.argtypes = [ctypes.c_void_p]
    library.munge_ctx_destroy.restype = None
    # munge_ctx_set is variadic: only the fixed arguments may be declared.
    library.munge_ctx_set.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.munge_ctx_strerror.argtypes = [ctypes.c_void_p]
    library.munge_ctx_strerror.restype = ctypes.c_char_p
    library.munge_strerror.argtypes = [ctypes.c_int]
    library.munge_strerror.restype = ctypes.c_char_p
    library.munge_encode.argtypes = [pointer(ctypes.c_void_p), ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    library.munge_decode.argtypes = [
        ctypes.c_char_p,
        ctypes.c_void_p,
        pointer(ctypes.c_void_p),
        pointer(ctypes.c_int),
        pointer(ctypes.c_uint32),
        pointer(ctypes.c_uint32),
    ]
    return library
