"""Scans killed at random moments: run again, they give the bytes of an undisturbed one and leave nothing.

A few kills by default; `-m slow` does 15 of each format, $ECODETECT_KILLS another number.
`benchmarks/robustness/kills.py` does it on a larger raster and with a disk that is full.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = int(os.environ.get("ECODETECT_KILLS", "15"))
SUFFIXES = ("geojson", "csv", "fgb", "parquet", "gpkg")
# The command line with units so small that even a sample scene has many.
SMALL_UNITS = """
import sys
from ecodetect import memory
memory._UNIT_PX = 96
from ecodetect_cli.main import main
sys.exit(main(sys.argv[1:]))
"""


class Scan:
    """One scan of a sample scene, to be run and killed.

    command : runs it.
    right : the bytes of the output when nobody disturbs it.
    seconds : how long it then takes from the journal to the end.
    """

    def __init__(self, scene: Path, folder: Path, suffix: str) -> None:
        self.out = folder / f"found.{suffix}"
        self._journal = folder / f"{self.out.name}.journal"
        self._stage = folder / f".{self.out.name}.part"
        flags = ["scan", str(scene), "-o", str(self.out), "-m", "threshold", "--tile", "96", "-q"]
        self.command = [sys.executable, "-c", SMALL_UNITS, *flags]
        with self._started() as process:
            self._wait_for(process, self._journal)
            began = time.monotonic()
            assert process.wait() == 0
        self.seconds = time.monotonic() - began
        self.right = self.out.read_bytes()
        self.out.unlink()

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command, stderr=subprocess.DEVNULL)

    def _wait_for(self, process: subprocess.Popen[bytes], path: Path) -> None:
        while process.poll() is None and not path.exists():
            time.sleep(0.001)

    def kill(self, chance: random.Random, *, writing: bool) -> None:
        """Run it and kill it a random while after the journal is there, or while the output is written."""
        with self._started() as process:
            self._wait_for(process, self._stage if writing else self._journal)
            time.sleep(chance.random() * (0.1 if writing else self.seconds))
            process.send_signal(signal.SIGKILL)
        # Whatever moment it was, nothing looks like an output that isn't one.
        assert not self.out.exists() or self.out.read_bytes() == self.right

    def finish(self) -> None:
        """Run it to its end."""
        result = subprocess.run(self.command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert self.out.read_bytes() == self.right
        # The layer, its style for QGIS, and the file that says what a CSV answers: no journal, nothing half.
        beside = {self.out.name, self.out.with_suffix(".qml").name, f"{self.out.name}.ecodetect"}
        assert {self.out.name} <= {entry.name for entry in self.out.parent.iterdir()} <= beside
        self.out.unlink()


needs_sigkill = pytest.mark.skipif(os.name == "nt", reason="nothing on Windows is quite like SIGKILL")


@needs_sigkill
def test_a_scan_killed_twice_and_in_its_writing_ends_with_the_same_bytes(
    sample_data: Path, tmp_path: Path
) -> None:
    scan = Scan(sample_data / "dryland.tif", tmp_path, "geojson")
    chance = random.Random(1)
    for writing in (False, False, True):
        scan.kill(chance, writing=writing)
    scan.finish()


@needs_sigkill
@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_many_kills_end_with_the_same_bytes(suffix: str, sample_data: Path, tmp_path: Path) -> None:
    scan = Scan(sample_data / "dryland.tif", tmp_path, suffix)
    chance = random.Random(suffix)
    for nth in range(KILLS):
        scan.kill(chance, writing=nth % 3 == 2)
        if nth % 5 or nth == KILLS - 1:  # every fifth is killed once more instead
            scan.finish()


@pytest.mark.skipif(os.name == "nt", reason="limits on file size are POSIX's")
def test_an_output_that_does_not_fit_is_one_sentence_and_keeps_the_journal(
    sample_data: Path, tmp_path: Path
) -> None:
    import resource

    scan = Scan(sample_data / "dryland.tif", tmp_path, "geojson")

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(scan.right) // 2, resource.RLIM_INFINITY))

    result = subprocess.run(scan.command, capture_output=True, text=True, check=False, preexec_fn=limited)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert not scan.out.exists()
    scan.finish()
