"""Spoil journals of stopped scans, with their -wal; the scan goes on, and gives the same bytes or a sentence.

python -m benchmarks.robustness.fuzz_journals --minutes 20
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

import rasterio
from rasterio.windows import Window

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import learned

from benchmarks.robustness.fuzz_bundles import REACH_PX, SCENE, write_scene
from benchmarks.robustness.fuzzing import Silent, Target, command, main
from benchmarks.robustness.mutations import spoilt
from ecodetect.bundle import file as bundle
from ecodetect.errors import UserError
from ecodetect.scanning import layout
from ecodetect.scanning.journal import Journal

DRYLAND = Path(__file__).parents[2] / "sample_data" / "dryland.tif"
TILE_PX = 32
OUT, RIGHT, JOURNAL = "found.geojson", "right.bin", "found.geojson.journal"
# name -> raster, flags, units done before the scan stops, and whether it is killed or ends in order.
STOPPED: dict[str, tuple[str, tuple[str, ...], int, bool]] = {
    "polygons-begun": ("part.tif", ("-m", "threshold"), 1, True),
    "polygons-half": ("part.tif", ("-m", "threshold"), 5, True),
    "polygons-closed": ("part.tif", ("-m", "threshold"), 5, False),
    "polygons-all": ("part.tif", ("-m", "threshold"), 9, True),
    "blobs-half": ("part.tif", ("-m", "blobs"), 4, False),
    "points-half": (SCENE, ("-m", "points.safetensors", "--score-map", "map.tif"), 2, True),
}


def make(folder: Path) -> dict[str, str]:
    """Journals of scans that were stopped, each beside its raster, with what the scan gives undisturbed."""
    layout.UNIT_PX = TILE_PX
    opened = {}
    for name, (image, _, units, is_killed) in STOPPED.items():
        place = folder / name
        place.mkdir()
        if image == SCENE:
            write_scene(place / SCENE)
            card = learned.card(unit="m", gsd=0.4, largest=8.0, reach_px=REACH_PX)
            bundle.write(place / "points.safetensors", learned.bundle(card))
        else:
            with rasterio.open(DRYLAND) as whole:
                window = Window(100, 100, 3 * TILE_PX, 3 * TILE_PX)
                facts = {**whole.profile, "width": window.width, "height": window.height, "tiled": False}
                facts |= {"transform": whole.window_transform(window)}
                for key in ("blockxsize", "blockysize"):
                    facts.pop(key)
                with rasterio.open(place / image, "w", **facts) as part:
                    part.write(whole.read(window=window))
                    part.descriptions = whole.descriptions
        for file in place.iterdir():
            os.utime(file, (1_700_000_000, 1_700_000_000))
        _scan_stopped(name, place, units, is_killed=is_killed)
        assert (place / JOURNAL).is_file(), name
        (place / "which.txt").write_text(name)
        opened[name] = JOURNAL
    for name in ("foreign", "text"):
        place = folder / name
        shutil.copytree(folder / "polygons-half", place)
        for file in place.glob(f"{JOURNAL}*"):
            file.unlink()
        (place / "which.txt").write_text("foreign")
        if name == "text":
            (place / JOURNAL).write_text("my notes\n" * 40, encoding="utf-8")
        else:
            with sqlite3.connect(place / JOURNAL) as database:
                database.execute("CREATE TABLE precious (a INTEGER, b TEXT)")
                database.executemany("INSERT INTO precious VALUES (?, ?)", [(n, "kept") for n in range(50)])
            database.close()
        opened[name] = JOURNAL
    return opened


def _scan_stopped(name: str, place: Path, units: int, *, is_killed: bool) -> None:
    """Scan undisturbed for the right bytes, then stop after some units."""
    image, flags, _, _ = STOPPED[name]
    arguments = [
        "scan",
        image,
        *flags,
        "-o",
        OUT,
        "-q",
        "--tile",
        str(TILE_PX),
        "--workers",
        "1",
        "--device",
        "cpu",
    ]
    for is_first in (True, False):
        child = os.fork()
        if child == 0:
            os.chdir(place)
            if not is_first:
                _stop_after(units, is_killed=is_killed)
            from ecodetect_cli.main import main as ecodetect

            os._exit(ecodetect(arguments))
        _, status = os.waitpid(child, 0)
        if is_first:
            assert status == 0, name
            (place / OUT).rename(place / RIGHT)
            for extra in (*place.glob("*.ecodetect"), *place.glob("*.qml")):
                extra.unlink()
            (place / "map.tif").unlink(missing_ok=True)


def _stop_after(units: int, *, is_killed: bool) -> None:
    """Let the journal end this process once so many units are entered."""
    add, left = Journal.add, [units]

    def stopping(self: Journal, *given: object, **named: object) -> None:
        add(self, *given, **named)  # type: ignore[arg-type]
        left[0] -= 1
        if not left[0]:
            if not is_killed:
                self.close()
            os._exit(9)

    Journal.add = stopping  # type: ignore[method-assign]


def spoil(data: bytes, chance: random.Random, donors: Sequence[bytes]) -> bytes:
    """A journal with 1, 5 or 20 bytes changed in one case of three, else with faults of any kind."""
    if chance.random() < 2 / 3:
        return spoilt(data, chance, donors)
    out = bytearray(data)
    for _ in range(chance.choice((1, 5, 20)) if out else 0):
        out[chance.randrange(len(out))] = chance.randrange(256)
    return bytes(out)


def run(path: Path, chance: random.Random) -> None:
    """Go on with the scan."""
    place = path.parent
    name = (place / "which.txt").read_text()
    image, flags, _, _ = STOPPED.get(name, STOPPED["polygons-half"])
    layout.UNIT_PX = TILE_PX
    os.chdir(place)
    before = path.read_bytes()
    is_ours = name != "foreign"
    try:
        command("scan", image, *flags, "-o", OUT, "-q", "--tile", TILE_PX, "--workers", 1, "--device", "cpu")
    except UserError:
        if (place / OUT).exists():
            raise Silent("refused, and an output all the same") from None
        if not path.exists() or (not is_ours and path.read_bytes() != before):
            raise Silent("what was refused is gone or changed") from None
        raise
    finally:
        os.chdir(place.parent / "here")
    if (place / OUT).read_bytes() != (place / RIGHT).read_bytes():
        raise Silent("another result")
    if not is_ours and before:  # an empty file is nobody's
        raise Silent("a file that is no journal was used")


TARGET = Target(
    "journals",
    make,
    run,
    spoil=spoil,
    share=0.6,
    most_s=30,
    batch=300,
    kept=(".tif", ".bin", ".txt", ".safetensors"),
    left=(JOURNAL, "-wal", "-shm", "-journal", OUT, ".qml", "map.tif", ".ecodetect"),
    modules=("torch", "ecodetect.runtime.torch_network"),
)

if __name__ == "__main__":
    sys.exit(main(TARGET))
