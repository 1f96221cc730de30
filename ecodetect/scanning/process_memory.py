"""The memory of this process: what it holds, keeps for the next tile, and returns to the system."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of malloc.h


def resident_bytes() -> int:
    """The current memory of this process in bytes."""
    return int(psutil.Process().memory_info().rss)


@contextmanager
def freed_is_kept() -> Iterator[None]:
    """A context that keeps memory freed by a tile for the next one, and returns it at the end (glibc only).

    Otherwise arrays of a few MB go back to the system each time and are mapped again page by page: a third of
    the CPU time of `threshold`. Larger arrays still do, because keeping them would raise the peak.
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
    """A context in which new threads share one heap (glibc only).

    With several heaps glibc keeps the end of each: 40 MB, which writing the file needs.
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
    """Return freed memory to the system (glibc only)."""
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
