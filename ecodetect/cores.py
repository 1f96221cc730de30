"""How many CPU cores this process was given: by its affinity, and by the quota of its control group."""

from __future__ import annotations

import os
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


def core_count() -> int:
    """Cores that this process may use, at least 1.

    A scheduler pins a job to some cores (affinity). A container gets a quota of CPU time from its control
    group, of version 1 or 2; for a quota of 1.5 cores this is 2.
    See https://docs.kernel.org/admin-guide/cgroup-v2.html, cpu.max.
    """
    pinned = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return max(1, pinned if quota is None else min(pinned, -int(-quota // 1)))


def _quota() -> float | None:
    """The smallest quota of the process's control group and those above it, in cores; None: there is none."""
    quotas = []
    for folder in _folders():
        quota = _of_version_2(folder / "cpu.max")
        quota = _of_version_1(folder) if quota is None else quota
        quotas += [] if quota is None else [quota]
    return min(quotas, default=None)


def _folders() -> list[Path]:
    """Where the control groups of this process lie, with those above them."""
    try:
        lines = OWN_GROUP.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = GROUPS / controllers if controllers else GROUPS
        own = root / path.lstrip("/")
        found += [own, *(each for each in own.parents if each == root or root in each.parents)]
    return found


def _of_version_2(file: Path) -> float | None:
    try:
        quota, period = file.read_text(encoding="utf-8").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _of_version_1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text(encoding="utf-8"))
        period = int((folder / "cpu.cfs_period_us").read_text(encoding="utf-8"))
        return None if quota <= 0 else quota / period
    except (OSError, ValueError, ZeroDivisionError):
        return None
