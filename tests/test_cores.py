"""A job uses the cores that it was given, not those of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ecodetect import cores


def grouped(monkeypatch: pytest.MonkeyPatch, folder: Path, line: str) -> None:
    """This process in a control group, on a machine of 64 cores."""
    own = folder / "own"
    own.write_text(f"{line}\n", encoding="utf-8")
    monkeypatch.setattr(cores, "GROUPS", folder)
    monkeypatch.setattr(cores, "OWN_GROUP", own)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


@pytest.mark.parametrize(("quota", "expected"), [("150000 100000", 2), ("max 100000", 64), ("nonsense", 64)])
def test_a_container_has_a_quota(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, expected: int
) -> None:
    (tmp_path / "job" / "step").mkdir(parents=True)
    (tmp_path / "job" / "cpu.max").write_text(quota, encoding="utf-8")  # of a group above
    grouped(monkeypatch, tmp_path, "0::/job/step")
    assert cores.core_count() == expected


def test_a_container_of_the_old_kind_has_one_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "cpu,cpuacct" / "job"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("400000\n", encoding="utf-8")
    (folder / "cpu.cfs_period_us").write_text("100000\n", encoding="utf-8")
    grouped(monkeypatch, tmp_path, "4:cpu,cpuacct:/job")
    assert cores.core_count() == 4


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no process")
def test_a_scheduler_pins_a_job() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from ecodetect.cores import core_count; print(core_count())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "1"
