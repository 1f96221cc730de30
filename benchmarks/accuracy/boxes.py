"""Boxes of a model against boxes drawn by hand, and what suppression does to its counts.

    python -m benchmarks.accuracy.boxes bccd/val/images bccd/val/annotations -m blood-cells
    python -m benchmarks.accuracy.boxes elephant-seals/val elephant-seals/val/annotations.json -m seals
        --edge 10 --ignore other

For each class the average precision at an IoU of 0.5 with its interval (images resampled), precision and
recall at the model's own thresholds; then how far off the counts are, picture by picture and in all, of the
head that answers each object once and of the other one with non-maximum suppression at several IoUs. Pictures
are scanned one by one, as a user would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import shapely
from numpy.typing import NDArray

import ecodetect
from benchmarks.measuring import table
from ecodetect import matching
from ecodetect.annotations.contract import class_of
from ecodetect.annotations.laying import read_annotations
from ecodetect.errors import LayerError
from ecodetect.metrics import average_precision
from ecodetect.models import choosing as models
from ecodetect.raster.reading import open_raster

IOU = 0.5
DRAWS = 1000
SUFFIXES = (".jpg", ".png", ".tif")


@dataclass(frozen=True, eq=False, slots=True)
class Seen:
    """Boxes of one class on one picture: their scores, whether each is true, and how many truths there are.

    Boxes neither right nor wrong (on ignored truths, at the edge) are left out.
    """

    score: NDArray[np.float64]
    hit: NDArray[np.bool_]
    truths: int


@click.command()
@click.argument("images", type=click.Path(exists=True, path_type=Path))
@click.argument("annotations", type=click.Path(exists=True, path_type=Path))
@click.option("-m", "--model", required=True)
@click.option("--ignore", multiple=True, help="Classes that are neither right nor wrong.")
@click.option(
    "--edge", default=0.0, help="Boxes without a truth that come so near to the edge don't count, px."
)
@click.option(
    "--without", default="", help="Pictures to leave out, by parts of their names, comma-separated."
)
@click.option("--heads/--no-heads", default=True, help="Whether to count with suppression too (yolo).")
def main(
    images: Path, annotations: Path, model: str, ignore: Sequence[str], edge: float, without: str, heads: bool
) -> None:
    """Measure."""
    left_out = [part for part in without.split(",") if part]
    pictures = [
        path
        for path in sorted(images.iterdir())
        if path.suffix.lower() in SUFFIXES and not any(part in path.name for part in left_out)
    ]
    card = models.card(model)
    names = [name for name in card.classes if name not in ignore]
    truths = {path: _truths(path, annotations) for path in pictures}
    own = dict(zip(card.classes, card.thresholds["f1"], strict=True))
    for_count = dict(zip(card.classes, card.thresholds["count"], strict=True))
    seen = _seen(pictures, truths, model, names, ignore, edge, {})
    rows = []
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(pictures), (DRAWS, len(pictures)))
    aps = {name: np.array([_ap([seen[name][i] for i in draw]) for draw in drawn]) for name in names}
    for name in names:
        rows.append([name, *_figures(seen[name], own[name]), _interval(aps[name])])
    click.echo(f"{model}: {len(pictures)} pictures, IoU {IOU:g}\n")
    header = ["class", "truths", "AP", "precision", "recall", "F1", "95 % of AP"]
    click.echo(table(header, rows))
    mean = np.mean([_ap(seen[name]) for name in names])
    click.echo(f"\nmean AP {mean:.3f} ({_interval(np.nanmean(list(aps.values()), axis=0))})\n")
    counts = [
        _counted("the model's own head and threshold", seen, own),
        _counted("the same, threshold for counts", seen, for_count),
    ]
    ways = [("once", {"head": "one"})]
    ways += [
        (f"suppressed above {iou}", {"head": "many", "suppression": iou}) for iou in ("0.3", "0.5", "0.7")
    ]
    for way, options in ways if heads else ():
        other = _seen(pictures, truths, model, names, ignore, edge, options)
        scores = card.thresholds["f1"]
        if options["head"] != card.options.get("head", "one"):
            scores = card.thresholds.get(f"{options['head']}_f1", scores)
        counts.append(_counted(f"{way}, own threshold", other, dict(zip(card.classes, scores, strict=True))))
        counts.append(_counted(f"{way}, above 0.5", other, dict.fromkeys(names, 0.5)))
        # Its best threshold on these very pictures: as good as it can be made to look.
        best = {name: _best(other[name]) for name in names}
        counts.append(_counted(f"{way}, best threshold here", other, best))
    header = ["boxes", "counted", "there", "in all", "mean absolute, a picture", "F1", "mean AP"]
    click.echo(table(header, counts))


def _truths(path: Path, annotations: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Boxes (N,) of shapely and their labels."""
    file = annotations
    if annotations.is_dir():
        file = next(each for each in annotations.iterdir() if each.stem == path.stem)
    with open_raster(str(path)) as raster:
        grid = raster.grid
    try:
        found = read_annotations(file, grid, image=path.name)
    except LayerError:  # nothing of this picture
        return np.empty(0, object), np.empty(0, object)
    boxes = shapely.box(*shapely.bounds(found.geometry).T) if len(found) else np.empty(0, object)
    good = shapely.area(boxes) > 0
    label = np.array([class_of(str(each)) for each in found.label], object)
    return np.asarray(boxes, object)[good], label[good]


def _seen(
    pictures: Sequence[Path],
    truths: dict[Path, Any],
    model: str,
    names: Sequence[str],
    ignore: Sequence[str],
    edge: float,
    options: dict[str, str],
) -> dict[str, list[Seen]]:
    found: dict[str, list[Seen]] = {name: [] for name in names}
    for path in pictures:
        there, label = truths[path]
        detected = ecodetect.scan(path, model=model, score=0.01, options=options)
        boxes, size = detected.geometry, np.array([detected.grid.width, detected.grid.height])
        shapes = np.asarray(shapely.box(*boxes.T), object).reshape(-1)
        at_edge = ((boxes[:, :2] < edge) | (boxes[:, 2:] > size - edge)).any(axis=1) & (edge > 0)
        absorbed = np.zeros(len(boxes), bool)
        doubtful = there[np.isin(label, list(ignore))]
        absorbed[matching.by_iou(shapes, doubtful, IOU).detection] = True
        for name in names:
            mine = np.flatnonzero(detected.labels == name)
            pairs = matching.by_iou(shapes[mine], there[label == name], IOU)
            hit = matching.ranked(pairs, detected.score[mine]).is_true
            counts = matching.counting(hit, np.asarray(at_edge)[mine], absorbed[mine])
            number = int(np.count_nonzero(label == name))
            found[name].append(Seen(detected.score[mine][counts], hit[counts], number))
    return found


def _pooled(parts: Sequence[Seen]) -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
    score = np.concatenate([part.score for part in parts])
    return score, np.concatenate([part.hit for part in parts]), sum(part.truths for part in parts)


def _ap(parts: Sequence[Seen]) -> float:
    return average_precision(*_pooled(parts)).coco


def _figures(parts: Sequence[Seen], threshold: float) -> list[str]:
    score, hit, truths = _pooled(parts)
    true, found = int(hit[score >= threshold].sum()), int((score >= threshold).sum())
    f1 = 2 * true / max(1, found + truths)
    precision, recall = true / max(1, found), true / max(1, truths)
    return [f"{truths:,}", *(f"{value:.3f}" for value in (_ap(parts), precision, recall, f1))]


def _interval(values: NDArray[np.float64]) -> str:
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return f"{low:.3f} to {high:.3f}"


def _best(parts: Sequence[Seen]) -> float:
    """The score with the best F1."""
    score, hit, truths = _pooled(parts)
    order = np.argsort(-score)
    f1 = 2 * np.cumsum(hit[order]) / (np.arange(1, len(score) + 1) + truths)
    return float(score[order][int(f1.argmax())]) if len(score) else 0.5


def _counted(name: str, seen: dict[str, list[Seen]], threshold: dict[str, float]) -> list[object]:
    pictures = len(next(iter(seen.values())))
    counted, there, true = np.zeros(pictures), np.zeros(pictures), 0
    for kind, parts in seen.items():
        for row, part in enumerate(parts):
            kept = part.score >= threshold[kind]
            counted[row] += np.count_nonzero(kept)
            there[row] += part.truths
            true += int(part.hit[kept].sum())
    off = counted - there
    f1 = 2 * true / max(1, counted.sum() + there.sum())
    share, mean = off.sum() / max(1, there.sum()), np.abs(off).mean()
    ap = np.mean([_ap(parts) for parts in seen.values()])
    return [
        name, f"{counted.sum():,.0f}", f"{there.sum():,.0f}", f"{share:+.1%}", f"{mean:.2f}", f"{f1:.3f}",
        f"{ap:.3f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
