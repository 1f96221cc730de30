"""The memory of this process: what it holds, what it keeps for the next tile, what it gives back."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of malloc.h


def resident_bytes() -> int:
    """Memory that this process holds now."""
    return int(psutil.Process().memory_info().rss)


@contextmanager
def freed_is_kept() -> Iterator[None]:
    """While it lasts, what a tile has freed is kept for the next one; then it is given back (glibc only).

    Else arrays of some MB go back to the system each time and come anew page by page: a third of the CPU of
    `threshold`. Larger ones do so here too, since keeping them too would raise the peak.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_M_MMAP_THRESHOLD, 16 << 20)
    libc.mallopt(_M_TRIM_THRESHOLD, 256 << 20)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_THRESHOLD, 128 << 10)  # what it starts with
        libc.mallopt(_M_TRIM_THRESHOLD, 128 << 10)
        libc.malloc_trim(0)


@contextmanager
def one_heap() -> Iterator[None]:
    """While it lasts, new threads share one heap (glibc only).

    With several heaps glibc keeps the end of each, 40 MB that the writing of the file lacked.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_M_ARENA_MAX, 1)
    try:
        yield
    finally:
        libc.mallopt(_M_ARENA_MAX, 0)  # as many as glibc takes


def give_back() -> None:
    """Give what has been freed back to the system (glibc only)."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt, libc.malloc_trim  # noqa: B018 - other C libraries lack them
    except (OSError, AttributeError):
        return None
    return libc
