"""Scans killed at random moments: run again, they give the bytes of an undisturbed one and leave nothing.

A few kills by default; `-m slow` does 15 of each format, $ECODETECT_KILLS another number.
`benchmarks/robustness/kills.py` does it on a larger raster and with a disk that is full.
"""

from __future__ import annotations

import os
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from scan_process import scanning

KILLS = int(os.environ.get("ECODETECT_KILLS", "15"))
SUFFIXES = ("geojson", "csv", "fgb", "parquet", "gpkg")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL and limits on file size are POSIX's")


class Scan:
    """One scan of a small scene, to be run and killed.

    arguments : those of the command line.
    right : the bytes of the output when nobody disturbs it.
    seconds : how long it then takes from the journal to the end.
    """

    def __init__(self, scene: Path, folder: Path, suffix: str) -> None:
        self.out = folder / f"found.{suffix}"
        self._journal = folder / f"{self.out.name}.journal"
        self._stage = folder / f".{self.out.name}.part"
        self.arguments = ["scan", str(scene), "-o", str(self.out), "-m", "threshold", "--tile", "96", "-q"]
        with scanning(self.arguments) as process:
            self._wait_for(process, self._journal)
            began = time.monotonic()
            process.join()
            assert process.exitcode == 0
        self.seconds = time.monotonic() - began
        self.right = self.out.read_bytes()
        self.out.unlink()

    def _wait_for(self, process: BaseProcess, path: Path) -> None:
        while process.is_alive() and not path.exists():
            time.sleep(0.001)

    def kill(self, chance: random.Random, *, writing: bool) -> None:
        """Run it and kill it a random while after the journal is there, or while the output is written."""
        with scanning(self.arguments) as process:
            self._wait_for(process, self._stage if writing else self._journal)
            time.sleep(chance.random() * (0.1 if writing else self.seconds))
            process.kill()
        # Whatever moment it was, nothing looks like an output that isn't one.
        assert not self.out.exists() or self.out.read_bytes() == self.right

    def finish(self) -> None:
        """Run it to its end."""
        with scanning(self.arguments) as process:
            process.join()
        assert process.exitcode == 0
        assert self.out.read_bytes() == self.right
        # The layer, its style for QGIS, and the file that says what a CSV answers: no journal, nothing half.
        beside = {self.out.name, self.out.with_suffix(".qml").name, f"{self.out.name}.ecodetect"}
        assert {self.out.name} <= {entry.name for entry in self.out.parent.iterdir()} <= beside
        self.out.unlink()


@pytest.fixture
def scene(corners: Path) -> Path:
    return corners / "dryland.tif"  # some twenty units


def test_a_scan_killed_twice_and_in_its_writing_ends_with_the_same_bytes(scene: Path, tmp_path: Path) -> None:
    scan = Scan(scene, tmp_path, "geojson")
    chance = random.Random(1)
    for writing in (False, False, True):
        scan.kill(chance, writing=writing)
    scan.finish()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_many_kills_end_with_the_same_bytes(suffix: str, scene: Path, tmp_path: Path) -> None:
    scan = Scan(scene, tmp_path, suffix)
    chance = random.Random(suffix)
    for nth in range(KILLS):
        scan.kill(chance, writing=nth % 3 == 2)
        if nth % 5 or nth == KILLS - 1:  # every fifth is killed once more instead
            scan.finish()


def test_an_output_that_does_not_fit_is_one_sentence_and_keeps_the_journal(
    scene: Path, tmp_path: Path
) -> None:
    scan, said = Scan(scene, tmp_path, "geojson"), tmp_path.parent / f"{tmp_path.name}.said"
    with scanning(scan.arguments, said=said, most_bytes=len(scan.right) // 2) as process:
        process.join()
    assert process.exitcode == 2
    assert said.read_text().startswith("error: ")
    assert len(said.read_text().splitlines()) == 1
    assert not scan.out.exists()
    scan.finish()
