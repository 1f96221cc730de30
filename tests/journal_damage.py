"""Journals of a scan that was killed, damaged on the disk, and what a scan makes of them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ecodetect.errors import UserError
from ecodetect.scanning import layout
from ecodetect.scanning.files import scan_files
from ecodetect.scanning.settings import Output, Settings

DAMAGES = ("1 byte", "5 bytes", "20 bytes", "200 bytes", "cut", "a page of zeros", "a page twice")


@dataclass(frozen=True)
class Interrupted:
    """A scan that was stopped, as it lay on the disk.

    images : its rasters.
    folder : with the journal, and SQLite's file beside it.
    right : bytes of the output when nobody disturbs it.
    asked : settings of the scan.
    """

    images: list[Path]
    folder: Path
    right: bytes
    asked: Settings

    def again(self, work: Path, harm: Callable[[Path], Any]) -> str:
        """Do harm to a copy and run the scan again.

        Returns `same` (the very output), `said` (the very output, with a note of damage), `refused` (one
        sentence and no output) or, for what must not be, a description.
        """
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(self.folder, work)
        out = work / "out.csv"
        harm(out.with_name("out.csv.journal"))
        try:
            with small_units():
                (summary,), failures = scan_files(self.images, self.asked, str(out))
        except UserError as error:
            text = str(error)
            good = not out.exists() and "\n" not in text and "journal" in text
            return "refused" if good else f"refused, but: {text}"
        if failures:
            return "refused" if "journal" in str(failures[0][1]) else f"failed: {failures[0][1]}"
        if out.read_bytes() != self.right:
            return "another output"
        left = {entry.name for entry in work.iterdir()} - {"out.csv", "out.csv.ecodetect"}
        if left:
            return f"left behind: {left}"
        return "said" if any(note.code == "journal-damaged" for note in summary.notes) else "same"


def small_units() -> Any:
    """While it lasts, units are so small that even a little raster has many."""
    return patch.object(layout, "UNIT_PX", 96)


def interrupted(images: list[Path], folder: Path, *, after: int, model: str = "threshold") -> Interrupted:
    """A scan of rasters into one CSV, copied as it lay on the disk after so many units of the last raster."""
    asked = Settings(model=model, tile_px=96, workers=1)
    whole, stopped = folder / "whole", folder / "stopped"
    whole.mkdir(parents=True)
    stopped.mkdir()
    units = 0

    def watch(name: str, done: float, total: float) -> None:
        nonlocal units
        units += name == images[-1].name
        if units == after + 1:  # it is called once before the first
            for file in whole.glob("out.csv.journal*"):
                shutil.copy(file, stopped)

    with small_units():
        scan_files(images, asked, str(whole / "out.csv"), Output(), watch)
    assert any(stopped.iterdir()), "fewer units than that"
    return Interrupted(images, stopped, (whole / "out.csv").read_bytes(), asked)


def checkpointed(found: Interrupted, folder: Path) -> Interrupted:
    """The same with all that was done in the journal itself, as after Ctrl-C."""
    import sqlite3

    shutil.copytree(found.folder, folder)
    database = sqlite3.connect(folder / "out.csv.journal")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return Interrupted(found.images, folder, found.right, found.asked)


def damage(file: Path, kind: str, chance: random.Random) -> None:
    """Damage a file in one of the ways of `DAMAGES`."""
    content = bytearray(file.read_bytes())
    if kind == "cut":
        del content[chance.randrange(len(content)) :]
    elif kind.startswith("a page"):
        pages = max(1, len(content) // 4096)
        at, other = (4096 * chance.randrange(pages) for _ in range(2))
        content[at : at + 4096] = content[other : other + 4096] if "twice" in kind else bytes(4096)
    else:
        for _ in range(int(kind.split()[0])):
            content[chance.randrange(len(content))] = chance.randrange(256)
    file.write_bytes(content)
