"""The lectures' comparison on the study's own test picture.

    python -m benchmarks.accuracy.lectures ZONE1 [--seeds 3] [-o FOLDER]

ZONE1 holds zone1.jpg, shrubs_west.csv, doubtful_west.csv and window_scores.csv (Guirado et al. 2017,
doi:10.3390/rs9121220; the boxes are not theirs). For each seed of the split the models are trained on the
western boxes outside the held-out blocks, then each way to use them is timed on the whole picture and judged
on the held-out blocks: one to one, found if the middle of what is found lies in a shrub's box. Doubtful
shrubs don't count. A shrub held out in several seeds counts as often.

The classifier is `sliding_window`'s own network on windows of 64 px of 0.12 m, as wide as the study's; at
their grid, 19.2 px apart, windows are cut where they printed them. The dense map's cells lie 16 px apart, the
next step below theirs that the network knows, or 8, or 4. Times are without start-up, with the picture read.

With -o the models stay in FOLDER, with a picture of their scores and ours side by side; models that are there
aren't trained again.
"""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.stats import spearmanr

import ecodetect
from benchmarks.measuring import machine, table
from ecodetect import matching
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.annotations.sources import gather
from ecodetect.annotations.splits import split
from ecodetect.bundle import file as bundle
from ecodetect.bundle.file import Bundle
from ecodetect.bundle.scaling import scaled
from ecodetect.detectors import sliding_window, window_networks
from ecodetect.raster.reading import open_raster
from ecodetect.training.recipe import train

GSD = 0.12
SIDE, STEP = 64, 19.2  # of the study's windows, in pixels
WINDOW = f"{SIDE * GSD:g}m"
Boxes = NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True)
class Way:
    """A way to find: its name, and what finds boxes (n, 4) in the picture's pixels."""

    name: str
    find: Callable[[], Boxes]


@click.command()
@click.argument("zone", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--seeds", type=int, default=3, show_default=True, help="Draws of held-out blocks.")
@click.option("--rounds", type=int, default=2, show_default=True, help="The fastest of so many counts.")
@click.option(
    "-o", "--out", type=click.Path(file_okay=False, path_type=Path), help="Keep models and pictures."
)
def main(zone: Path, seeds: int, rounds: int, out: Path | None) -> None:
    """Train, time and judge."""
    picture, truth, doubtful = (zone / name for name in ("zone1.jpg", "shrubs_west.csv", "doubtful_west.csv"))
    asked = AnnotationOptions(gsd_m=GSD, ignore=(str(doubtful),))
    sources = gather([picture, truth], asked).sources
    counts: dict[str, NDArray[np.int64]] = {}
    seconds: dict[str, list[float]] = {}
    with open_raster(picture, gsd_m=GSD) as raster:
        whole = raster.read(raster.grid.window, raster.bands, raster.grid)
        mpx = raster.grid.window.area / 1e6
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(seeds):
            folder = (out or Path(temporary)) / f"seed{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            models = {
                name: folder / f"{name}.safetensors" for name in ("windows", "proposals", "obia", "heatmap")
            }
            for name, path in models.items():
                _train(name, [picture, truth], path, asked, seed)
            held = split(sources, seed=seed).validation[0].counted
            swept = bundle.read(models["windows"])
            image = scaled(whole.pixels, whole.valid, swept.card.scaling, swept.card.fill)
            for way in _ways(swept, image, whole.valid, models, picture):
                if seed == 0:
                    seconds[way.name] = [_timed(way.find) for _ in range(rounds)]
                counts.setdefault(way.name, np.zeros(3, np.int64))
                counts[way.name] += _judged(way.find(), sources[0], held)
            if seed == 0:
                _beside_theirs(zone / "window_scores.csv", swept, image, out)
    rows = []
    for name, (true, false, missed) in counts.items():
        taken = min(seconds[name])
        precision, recall = true / max(true + false, 1), true / max(true + missed, 1)
        f1 = 2 * true / max(2 * true + false + missed, 1)
        rows.append(
            [name, f"{taken:.2f}", f"{taken / mpx:.2f}", *(f"{v:.3f}" for v in (precision, recall, f1))]
        )
    n = int(next(iter(counts.values()))[[0, 2]].sum())
    click.echo(
        f"\n{picture.name}, {mpx:.2f} Mpx, {n} shrubs in held-out blocks of {seeds} seeds; {machine()}\n"
    )
    click.echo(table(["way", "s", "s per Mpx", "precision", "recall", "F1"], rows))


def _train(name: str, paths: Sequence[Path], out: Path, asked: AnnotationOptions, seed: int) -> None:
    """Train one model, with the settings that a user would state."""
    kinds: dict[str, dict[str, Any]] = {
        "windows": {"model": "sliding_window", "settings": {"window": WINDOW}},
        "proposals": {"model": "proposals"},
        "obia": {"model": "obia"},
        "heatmap": {},
    }
    began = time.perf_counter()
    if out.exists():
        return
    train(paths, out, asked=asked, seed=seed, **kinds[name])
    click.echo(f"seed {seed}: {name} trained in {time.perf_counter() - began:.0f} s", err=True)


def _timed(find: Callable[[], Boxes]) -> float:
    began = time.perf_counter()
    find()
    return time.perf_counter() - began


# -- ways to find --------------------------------------------------------------------------------------------


def _ways(
    swept: Bundle, image: NDArray[np.float32], valid: Any, models: dict[str, Path], picture: Path
) -> list[Way]:
    def scanned(model: Path) -> Boxes:
        return ecodetect.scan(picture, model=str(model), gsd_m=GSD).bounds()

    return [
        Way("windows one by one, step 19.2 px", lambda: _at_their_grid(swept, image, valid, 1)),
        Way("windows in batches of 64, step 19.2 px", lambda: _at_their_grid(swept, image, valid, 64)),
        Way("dense, a cell every 16 px", lambda: _dense(swept, image, valid, 16)),
        Way("windows in batches of 64, step 16 px", lambda: _dense(swept, image, valid, 16, "windows")),
        Way("dense, a cell every 8 px", lambda: _dense(swept, image, valid, 8)),
        Way("windows in batches of 64, step 8 px", lambda: _dense(swept, image, valid, 8, "windows")),
        Way("dense, a cell every 4 px", lambda: _dense(swept, image, valid, 4)),
        Way("`scan -m sliding_window` (reading, tiles, settling)", lambda: scanned(models["windows"])),
        Way("candidates and classifier (`proposals`)", lambda: scanned(models["proposals"])),
        Way("`obia`", lambda: scanned(models["obia"])),
        Way("heat map, fine-tuned", lambda: scanned(models["heatmap"])),
    ]  # fmt: skip


def _of_step(swept: Bundle, step: int, evaluation: str) -> Bundle:
    shape = {**swept.card.options["network"], "step": step, "evaluation": evaluation}
    card = replace(swept.card, options={**swept.card.options, "network": shape}, reach_px=SIDE)
    return Bundle(card, swept.weights)


def _dense(swept: Bundle, image: NDArray[np.float32], valid: Any, step: int, how: str = "dense") -> Boxes:
    """Boxes of the map of all windows `step` px apart."""
    model = _of_step(swept, step, how)
    network = window_networks.open_classifier(model, "cpu", None)
    height, width = image.shape[1:]
    padded = np.pad(image, [(0, 0), (0, -height % 16), (0, -width % 16)])
    return _cut(sliding_window.decode(network.run(padded[None]), model.card)[0], model, valid)


def their_windows(width: int, height: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Left and upper edges of the study's windows, cut to whole pixels as they printed them."""
    columns, rows = (int((side - SIDE) // STEP) + 1 for side in (width, height))
    return (np.arange(columns) * STEP).astype(np.int64), (np.arange(rows) * STEP).astype(np.int64)


def _their_map(swept: Bundle, image: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
    """How likely each of their windows is a shrub: (1, rows, columns)."""
    network = window_networks.open_classifier(_of_step(swept, SIDE, "windows"), "cpu", None)
    left, top = their_windows(image.shape[2], image.shape[1])
    places = [(x, y) for y in top for x in left]
    logits = []
    for begin in range(0, len(places), batch):
        windows = [image[:, y : y + SIDE, x : x + SIDE] for x, y in places[begin : begin + batch]]
        logits.append(network.run(np.stack(windows))[0][:, :, 0, 0])
    likely = sliding_window.probability(np.concatenate(logits).T, swept.card)
    return likely.reshape(-1, len(top), len(left))


def _at_their_grid(swept: Bundle, image: NDArray[np.float32], valid: Any, batch: int) -> Boxes:
    likely = _their_map(swept, image, batch)
    shape = {**swept.card.options["network"], "step": STEP}
    card = replace(swept.card, options={**swept.card.options, "network": shape})
    box, score, label = sliding_window.read_map(likely, card, card.options["boxes"], 1)
    return _cut((box + (SIDE - STEP) / 2, score, label), swept, valid)


def _cut(found: Any, model: Bundle, valid: Any) -> Boxes:
    """Those above the threshold with their middle on the picture, kept as a scan keeps them."""
    box, score, label = found
    kept = score >= np.asarray(model.card.thresholds["f1"])[label]
    middle = np.floor((box[:, :2] + box[:, 2:]) / 2).astype(np.int64)
    height, width = (1924, 1945) if valid is None else valid.shape
    kept &= (middle >= 0).all(axis=1) & (middle < (width, height)).all(axis=1)
    return np.asarray(box[kept], np.float64)


# -- judging -------------------------------------------------------------------------------------------------


def _judged(boxes: Boxes, source: Any, held: Any) -> NDArray[np.int64]:
    """True, false and missed ones in the held-out blocks."""
    marked = source.annotations
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = np.zeros(len(middle), np.bool_)
    if len(middle):  # elsewhere nobody has looked
        inside = held.contains(middle) & source.complete.contains(middle)
    boxes, middle = boxes[inside], middle[inside]
    truths = marked.geometry[held.contains(source.xy)]
    points = shapely.points(middle)
    doubtful = shapely.union_all(source.ignored) if len(source.ignored) else shapely.Point()
    pairs = matching.by_inside(points, truths)
    matched = matching.assign(pairs)
    true = len(matched.detection)
    others = np.setdiff1d(np.arange(len(points)), matched.detection)
    false = int(np.count_nonzero(~shapely.intersects(points[others], doubtful)))
    return np.array([true, false, len(truths) - true])


# -- beside the study


def _beside_theirs(scores: Path, swept: Bundle, image: NDArray[np.float32], out: Path | None) -> None:
    """Rank correlation of our scores with theirs, window by window; both maps as a picture."""
    with scores.open() as file:
        rows = list(csv.DictReader(file))
    left, top = their_windows(image.shape[2], image.shape[1])
    theirs = np.full((len(top), len(left)), np.nan)
    for row in rows:
        column, line = round(float(row["x"]) / STEP), round(float(row["y"]) / STEP)
        if line < len(top) and column < len(left):
            theirs[line, column] = float(row["score"])
    ours = _their_map(swept, image, 64)[0]
    both = np.isfinite(theirs)
    east = np.broadcast_to(left[None] + SIDE / 2 > image.shape[2] / 2, theirs.shape)
    click.echo(
        f"rank correlation of our scores with the study's: {spearmanr(ours[both], theirs[both])[0]:.3f} over"
        f" {both.sum():,} windows; in the east, where nothing was learned,"
        f" {spearmanr(ours[both & east], theirs[both & east])[0]:.3f}"
    )
    if out is None:
        return
    maps = [np.nan_to_num(each) for each in (theirs, ours)]
    grey = [
        cv2.resize((255 * each).astype(np.uint8), None, fx=6, fy=6, interpolation=cv2.INTER_NEAREST)
        for each in maps
    ]
    cv2.imwrite(
        str(out / "scores-theirs-ours.png"),
        np.hstack([grey[0], np.full((len(grey[0]), 12), 128, np.uint8), grey[1]]),
    )


if __name__ == "__main__":
    main()
