"""Spoil bundles of every learned kind: their bytes, header, card and numbers; each is scanned with.

python -m benchmarks.robustness.fuzz_bundles --minutes 20
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import rasterio

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import learned

from benchmarks.robustness.fuzzing import Silent, Target, command, main
from ecodetect.bundle import file as bundle
from ecodetect.bundle.file import Bundle
from ecodetect.detectors import table as detectors

SCENE = "scene.tif"
SIDE = 96  # px
REACH_PX = 48  # stated, so that it isn't measured in each case, which takes up to 10 s


def make(folder: Path) -> dict[str, str]:
    """A small bundle of each kind, and one of a classifier, each beside a raster for it."""
    opened = {}
    kinds = sorted(name for name in detectors.known() if detectors.is_learned(name))
    for name in (*kinds, "classifier"):
        place = folder / name
        place.mkdir()
        if name == "classifier":
            options = {"patches": True}
            card = learned.card("sliding_window", classes=("a", "b"), options=options, reach_px=REACH_PX)
        else:
            card = learned.card(name, reach_px=REACH_PX)
        made = learned.bundle(card)
        write_scene(place / SCENE)
        bundle.write(place / "model.safetensors", Bundle(made.card, bundle.half(made.weights)))
        opened[name] = "model.safetensors"
    return opened


def write_scene(path: Path) -> None:
    """Dark discs on bright ground, in four bands and metres, with some noise."""
    chance = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    near = np.minimum.reduce([np.hypot(x - a, y - b) for a in (20, 50, 80) for b in (25, 60)])
    pixels = np.where(near < 7, 40, 100) + chance.integers(0, 15, (4, SIDE, SIDE))
    place = rasterio.Affine(0.4, 0, 404_000, 0, -0.4, 3_285_000)
    with rasterio.open(
        path, "w", driver="GTiff", width=SIDE, height=SIDE, count=4, dtype="uint8", crs="EPSG:32617",
        transform=place, photometric="RGB",
    ) as file:  # fmt: skip
        file.write(pixels.astype("uint8"))
        file.descriptions = ("red", "green", "blue", "nir")


def run(path: Path, chance: random.Random) -> None:
    """Scan with it; now and then ask what it is, or classify with it."""
    scene, found = path.parent / SCENE, path.parent / "found.csv"
    dice = chance.random()
    if dice < 0.1:
        command("info", path)
    elif dice < 0.4 and path.parent.name == "classifier":
        points = path.parent / "points.csv"
        points.write_text("x,y,label\n20,25,a\n50,60,b\n", encoding="utf-8")
        command("classify", points, scene, "-m", path, "-o", found, "--overwrite")
    else:
        command("scan", scene, "-m", path, "-o", found, "--overwrite", "-q", "--device", "cpu")
    if found.exists():
        check_numbers(found)


def check_numbers(path: Path) -> None:
    """Raise Silent where a file of detections has a number that is none."""
    words = path.read_text(encoding="utf-8").lower().replace("\n", ",").split(",")
    if {"nan", "inf", "-inf"} & set(words):
        raise Silent("numbers that aren't finite")


LEFT = ("found.csv", "found.csv.ecodetect", "points.csv")
MODULES = (
    "torch",
    "ecodetect.runtime.torch_network",
    "ecodetect.classification.layers",
    "ecodetect_cli.classify",
)
TARGET = Target("bundles", make, run, share=1.0, most_s=30, batch=120, left=LEFT, modules=MODULES)

if __name__ == "__main__":
    sys.exit(main(TARGET))
