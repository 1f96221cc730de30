"""Which epoch and which thresholds: each training once, judged again by two rules, in five splits.

    python -m benchmarks.accuracy.selecting train RUN SET    once for each training of a set; resumes
    python -m benchmarks.accuracy.selecting judge RUN…       the table of benchmarks/README.md

SET is a folder with `training/images`, `training/points`, `judged/images` and `judged/points` (CSV of x, y in
pixels, the stems of the images). Names of judged images begin with their place and two underscores
(`riverside__….tif`). `prepare` lays out the three
sets of the page, and the one that the rules were chosen on:

    python -m benchmarks.accuracy.selecting prepare trees-naip|oil-palms|nuclei|elephant-seals DATA FOLDER

After each epoch of a training RUN gets a file with what the network finds on all judged ground, so a rule
costs no training. No judged ground has a say in training: false detections aren't mined, and no training
stops early. Then ground is dealt out again, five times by place: one place is left out, on whole images (or
strips of one) of the others, drawn until they hold 120 individuals, epoch and thresholds are chosen, and what
was chosen is measured on the place left out. For palms the half region that wasn't trained on is what is
drawn from, each time without another fifth, and the other region is left out. Each split is drawn 20 times.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import click
import numpy as np
import rasterio
import torch
from rasterio.windows import Window

from benchmarks.measuring import table
from ecodetect.annotations.sample import Sample
from ecodetect.bundle import file as bundle
from ecodetect.bundle.scaling import padded_to_stride
from ecodetect.detectors.learned import Answer, NetworkKind
from ecodetect.runtime import torch_network
from ecodetect.training import checkpoint, loop, selection
from ecodetect.training.case import begin
from ecodetect.training.drawing import Drawn, Pieces
from ecodetect.training.planning import Schedule, plan_for, weights_are_learned
from ecodetect.training.recipe import starting_network
from ecodetect.training.selection import RankedMatches
from ecodetect.training.settings import TrainingSettings


@click.group()
def main() -> None:
    """Which epoch, which thresholds."""


# -- training, once ------------------------------------------------------------------------------------------


@main.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("ground", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-m", "--model", help="As `ecodetect train`.")
@click.option("--backbone", help="As `ecodetect train`.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--steps", type=int, default=144, show_default=True)
@click.option("--epochs", type=int, default=12, show_default=True)
@click.option("--threads", type=int, default=1, show_default=True)
def train(
    folder: Path,
    ground: Path,
    model: str | None,
    backbone: str | None,
    seed: int,
    steps: int,
    epochs: int,
    threads: int,
) -> None:
    """Train as `ecodetect train` does, and keep what each epoch's network finds on judged ground."""
    torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [ground / side / kind for side in ("training", "judged") for kind in ("images", "points")]
    torch.manual_seed(seed)
    how = TrainingSettings(model=model, backbone=backbone, split_by="*/judged/*", seed=seed)
    case = begin(paths, folder.name, None, how, click.echo)
    kind, judged = case.kind, case.grounds[1]
    assert isinstance(kind, NetworkKind)
    assert isinstance(judged, Pieces)
    network = starting_network(kind, case, how, click.echo)
    plan = plan_for(case.statistics, case.card, case.start is not None, weights_are_learned(backbone, None))
    every = -(-steps // epochs)
    plan = replace(
        plan, seed=seed, mines=False, patience=10_000, workers=1, every=every, steps=every * epochs
    )
    spacing = case.statistics.spacing_px
    facts = {
        "within_px": plan.within_px,
        "typical_px": case.statistics.size_px[1] if case.statistics.size_px else None,
        "spacing_px": spacing[2] if spacing else None,
        "names": [case.gathered.sources[place.source].name for place in judged.places],
        "trained_on": case.statistics.objects,
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=1))
    epoch_ends = _EpochEnds(folder, kind, judged, plan)
    # Without ground to validate with, each epoch's network is the best so far, and its bundle is written.
    data = Drawn(case.training, None, math.ceil(plan.size_px * plan.augmentations.widening))
    kept = checkpoint.Folder(folder, folder.name, resume=True)
    loop.fit(kind, network, case.card, data, plan, kept, progress=epoch_ends)
    epoch_ends.keep(plan.steps)


class _EpochEnds:
    """What the network of each epoch's end finds on judged ground; says how far it is, every half minute."""

    def __init__(self, folder: Path, kind: NetworkKind, judged: Pieces, plan: Schedule) -> None:
        self.folder, self.kind, self.judged, self.plan = folder, kind, judged, plan
        self.last = time.monotonic()

    def __call__(self, now: loop.Progress) -> None:
        if now.step > 1 and (now.step - 1) % self.plan.every == 0:
            self.keep(now.step - 1)
        if time.monotonic() - self.last > 30:
            self.last = time.monotonic()
            click.echo(f"step {now.step} of {now.steps}, loss {now.loss:.4f}, {now.seconds_left:.0f} s left")

    def keep(self, step: int) -> None:
        """Write what the bundle of the epoch that ended with this step finds."""
        made = bundle.read(self.folder / checkpoint.BEST)
        network = torch_network.open_network(made, lambda: self.kind.network(made.card, None), device="cpu")
        arrays: dict[str, np.ndarray] = {}
        for number, sample in enumerate(self.judged):
            image = padded_to_stride(sample.image, network.stride, made.card.fill)
            answer = self.kind.decode(network.run(image[None]), made.card)[0]
            arrays |= {f"{number}/{name}": each for name, each in _facts(answer, sample, self.plan).items()}
        target = self.folder / f"epoch-{step:06d}.npz"
        part = target.with_suffix(".part.npz")
        np.savez_compressed(part, allow_pickle=False, **arrays)
        part.replace(target)


def _facts(found: Answer, sample: Sample, plan: Schedule) -> dict[str, np.ndarray]:
    """What was found on a piece of ground and what is there, where they count."""
    # Scores that all differ, in the same order, tell which detections `judge` kept.
    unlike = np.empty(len(found.score))
    unlike[np.argsort(found.score, kind="stable")] = np.arange(len(found.score))
    judged = selection.judge(Answer(found.geometry, unlike, found.label), sample, plan.within_px, 1)
    kept = judged.score.astype(int)
    kept = np.argsort(unlike)[kept]
    counted = selection.which_count(sample.objects, sample)
    return {
        "xy": found.xy[kept].astype(np.float32),
        "score": np.asarray(found.score, np.float64)[kept],
        "is_true": judged.is_true,
        "truths": sample.objects.xy[counted].astype(np.float32),
    }


# -- judging, again and again --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class Piece:
    """What an epoch's network finds on a piece of ground.

    place : by which ground is left out.  strip : of its image, where few images are judged.
    """

    place: str
    strip: int
    xy: np.ndarray
    score: np.ndarray
    is_true: np.ndarray
    truths: np.ndarray

    def judged(self, parts: int) -> RankedMatches:
        """As `selection.judge` gives it."""
        low = np.minimum(self.xy.min(axis=0, initial=np.inf), self.truths.min(axis=0, initial=np.inf))
        high = np.maximum(self.xy.max(axis=0, initial=1), self.truths.max(axis=0, initial=1)) + 1
        low = np.minimum(low, high - 1)
        shape = tuple((high - low)[::-1])
        counts = np.zeros((parts * parts, 1), np.int64)
        np.add.at(counts[:, 0], selection.parts_at(self.truths - low, shape, parts), 1)
        label = np.zeros(len(self.score), np.int64)
        place = selection.parts_at(self.xy - low, shape, parts)
        return RankedMatches(self.score, label, self.is_true, place, counts)


def pieces(run: Path, epoch: Path, names: Sequence[str]) -> list[Piece]:
    """Those of an epoch; the images of palms in strips from west to east."""
    found = []
    with np.load(epoch) as arrays:
        for number, name in enumerate(names):
            xy, score, is_true, truths = (
                arrays[f"{number}/{key}"] for key in ("xy", "score", "is_true", "truths")
            )
            place = Path(name).name.partition("__")[0]
            if not run.name.startswith("palms"):
                found.append(Piece(place, 0, xy, score, is_true, truths))
                continue
            edges = np.linspace(64, 64 + _wide(arrays, number), 11)[1:-1]
            here, there = np.digitize(xy[:, 0], edges), np.digitize(truths[:, 0], edges)
            found += [
                Piece(place, k, xy[here == k], score[here == k], is_true[here == k], truths[there == k])
                for k in range(10)
            ]
    return found


def _wide(arrays: np.lib.npyio.NpzFile, number: int) -> float:
    """How wide a piece is, from its individuals: palms are planted up to its edges."""
    return float(arrays[f"{number}/truths"][:, 0].max()) - 64


def dealt(
    run: Path, ground: Sequence[Piece], rng: np.random.Generator
) -> Iterator[tuple[str, list[int], list[int]]]:
    """(name of the split, pieces that choose, pieces that measure), five times."""
    places = list(dict.fromkeys(piece.place for piece in ground))
    n = np.array([len(piece.truths) for piece in ground])
    where = np.array([piece.place for piece in ground])
    if run.name.startswith("palms"):
        mine, other = (next(each for each in places if each.startswith(word)) for word in ("east", "region"))
        strips = np.array([piece.strip for piece in ground])
        for fifth in range(5):
            kept = (where == mine) & (strips // 2 != fifth)
            drawn = rng.permutation(np.flatnonzero(kept))[:7]
            yield f"without fifth {fifth + 1}", sorted(drawn), list(np.flatnonzero(where == other))
        return
    for left_out in [place for place in places if n[where == place].sum() >= 120][-5:]:
        order = rng.permutation(np.flatnonzero(where != left_out))
        enough = int(np.searchsorted(np.cumsum(n[order]), 120)) + 1
        yield left_out, sorted(order[:enough]), list(np.flatnonzero(where == left_out))


def old_epoch(judged: Sequence[RankedMatches]) -> int:
    """The rule until 2026-11: the last whose F1 at its best threshold is the best but for one individual."""
    f1s = [each.rates(old_thresholds(each)["f1"]).f1 for each in judged]
    good = max(f1s) - 1.001 / max(int(judged[0].n_truths.sum()), 1)
    return max(row for row, f1 in enumerate(f1s) if f1 >= good)


def old_thresholds(judged: RankedMatches) -> dict[str, tuple[float, ...]]:
    """The rule until 2026-11: the middle of those with nearly the best F1; as many detections as truths."""
    order = np.argsort(-judged.score, kind="stable")
    score, hits, n = judged.score[order], np.cumsum(judged.is_true[order]), int(judged.n_truths.sum())
    if not n or not len(score) or not hits[-1]:
        return {"f1": (0.5,), "count": (0.5,)}
    f1 = 2 * hits / (np.arange(1, len(score) + 1) + n)
    f1[:-1][score[:-1] == score[1:]] = -1.0
    good = np.flatnonzero(f1 >= f1.max() - 0.004)
    below = np.append(score[1:], 0.9 * score[-1])
    middles = (score + below) / 2
    return {"f1": (middles[good[len(good) // 2]],), "count": (middles[min(n, len(score)) - 1],)}


def new_epoch(judged: Sequence[RankedMatches]) -> int:
    """That of `ecodetect train`."""
    return selection.last_as_good([selection.drawn_precision(each) for each in judged])


def new_thresholds(judged: RankedMatches) -> dict[str, tuple[float, ...]]:
    """Those of `ecodetect train`."""
    return selection.choose(judged, otherwise=0.5)


RULES: dict[str, tuple[Callable[..., int], Callable[..., dict[str, tuple[float, ...]]]]] = {
    "before": (old_epoch, old_thresholds),
    "new epoch only": (new_epoch, old_thresholds),
    "new thresholds only": (old_epoch, new_thresholds),
    "now": (new_epoch, new_thresholds),
}


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--draws", type=int, default=20, show_default=True, help="Draws of each split.")
def judge(runs: tuple[Path, ...], draws: int) -> None:
    """Choose by each rule, measure on ground left out, and print tables."""
    for run in runs:
        names = json.loads((run / "facts.json").read_text())["names"]
        epochs = [pieces(run, path, names) for path in sorted(run.glob("epoch-??????.npz"))]
        # rule -> split -> (F1, count's error, epoch) of each draw
        found: dict[str, dict[str, list[tuple[float, float, float]]]] = {rule: {} for rule in RULES}
        chosen_n, left_n, width, held = [], [], [], []
        rng = np.random.default_rng(0)
        for _ in range(draws):
            for split, choosing, measuring in dealt(run, epochs[0], rng):
                parts = selection.parts_of(len(choosing))
                seen = [_pooled(each, choosing, parts) for each in epochs]
                rest = _pooled(epochs[0], measuring, 1)
                chosen_n.append(int(seen[0].n_truths.sum()))
                left_n.append(int(rest.n_truths.sum()))
                taken = {rule: rule(seen) for rule in (old_epoch, new_epoch)}
                for name, (which, thresholds) in RULES.items():
                    epoch = taken[which]
                    cuts, rest = thresholds(seen[epoch]), _pooled(epochs[epoch], measuring, 1)
                    f1, counts = rest.rates(cuts["f1"]).f1, rest.rates(cuts["count"])
                    off = counts.n_detections / counts.n_truths - 1
                    found[name].setdefault(split, []).append((f1, off, epoch + 1))
                told = selection.counted(seen[epoch], cuts["count"])  # of the last rule, that of now
                assert told is not None
                width.append(told.interval.high - told.interval.low)
                held.append(told.interval.low <= off <= told.interval.high)
        n = f"{min(chosen_n)} to {max(chosen_n)} choose, {min(left_n)} to {max(left_n)} measure"
        click.echo(f"\n{run.name}: {len(epochs)} epochs; {n}; {draws} draws of each split")
        rows = [[rule, *_figures(list(chain(*by.values())))] for rule, by in found.items()]
        click.echo(table(["rule", "F1", "count off by (mean, absolute)", "epoch"], rows))
        click.echo(f"\ninterval of counts: {np.mean(width):.0%} wide, held {np.mean(held):.0%} of the time\n")
        before, now = found["before"], found["now"]
        rows = [[split, *_figures(before[split]), *_figures(now[split])] for split in now]
        header = ["left out", "F1 before", "count before", "epoch before", "F1 now", "count now", "epoch now"]
        click.echo(table(header, rows))


def _pooled(ground: Sequence[Piece], rows: Sequence[int], parts: int) -> RankedMatches:
    return selection.pooled((ground[row].judged(parts) for row in rows), 1)


def _figures(each: Sequence[tuple[float, float, float]]) -> list[str]:
    f1, off, epoch = np.array(each).T
    return [f"{f1.mean():.4f}", f"{off.mean():+.1%}, {np.abs(off).mean():.1%}", f"{epoch.mean():.1f}"]


# -- the sets ------------------------------------------------------------------------------------------------


@main.command()
@click.argument("name", type=click.Choice(["trees-naip", "oil-palms", "nuclei", "elephant-seals"]))
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def prepare(name: str, data: Path, folder: Path) -> None:
    """Lay out a set from its published folders."""
    {
        "trees-naip": _trees,
        "oil-palms": _palms,
        "nuclei": _nuclei,
        "elephant-seals": _seals,
    }[name](data, folder)


def _trees(data: Path, folder: Path) -> None:
    """Two sets, each trained on 14 tiles in each of two cities; judged are 8 tiles in each of five."""
    pairs: dict[str, list[Path]] = {}
    for image in sorted(data.glob("*/images/*.tif")):
        pairs.setdefault(image.name.partition("_20")[0], []).append(image)
    for number, cities in enumerate((("claremont", "long_beach"), ("palm_springs", "riverside"))):
        for city, images in pairs.items():
            order = np.random.default_rng(number).permutation(len(images))
            taken = [images[row] for row in order]
            if city in cities:
                for image in taken[:14]:
                    _kept(folder / f"trees-{number}", "training", city, image, _points(image))
            for image in taken[14:22]:
                _kept(folder / f"trees-{number}", "judged", city, image, _points(image))


def _points(image: Path) -> list[tuple[float, float]]:
    with (image.parent.parent / "points" / f"{image.stem}.csv").open(newline="") as file:
        return [(float(row["x"]) + 0.5, float(row["y"]) + 0.5) for row in csv.DictReader(file)]


def _palms(data: Path, folder: Path) -> None:
    """Two sets, each trained on the west of a region; judged are its east and the other region."""
    for number in (1, 2):
        for region in (1, 2):
            image = data / f"region{region}.tif"
            with (data / f"region{region}_boxes.csv").open(newline="") as file:
                sides = ("xmin", "ymin", "xmax", "ymax")
                boxes = [[float(row[side]) for side in sides] for row in csv.DictReader(file)]
            sets = folder / f"palms-{number}"
            if region != number:
                _kept(sets, "judged", f"region{region}", image, boxes)
                continue
            for side, place, window in (
                ("training", "west", Window(0, 0, 960, 1080)),
                ("judged", "east", Window(960, 0, 960, 1080)),
            ):
                part = _cut(image, window, folder / f"region{region}_{place}.tif")
                middle = [(box[0] + box[2]) / 2 for box in boxes]
                inside = [
                    [box[0] - window.col_off, box[1], box[2] - window.col_off, box[3]]
                    for box, x in zip(boxes, middle, strict=True)
                    if window.col_off <= x < window.col_off + 960
                ]
                clipped = [[max(a, 0), b, min(c, 960), d] for a, b, c, d in inside]
                _kept(sets, side, f"{place}{region}", part, clipped)


def _cut(image: Path, window: Window, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(image) as source:
        profile = {**source.profile, "width": window.width, "height": window.height, "compress": "deflate"}
        profile["transform"] = source.window_transform(window)
        profile.pop("photometric", None)
        with rasterio.open(target, "w", **profile) as file:
            file.write(source.read(window=window))
            file.colorinterp = source.colorinterp
    return target


def _nuclei(data: Path, folder: Path) -> None:
    """Two sets, each trained on 4 to 14 pictures of each of three kinds; judged are 3 to 12 of six."""
    with (data / "kinds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kinds: dict[str, dict[str, list[Path]]] = {}
    for row in rows:
        by_source = kinds.setdefault(row["kind"], {})
        by_source.setdefault(row["source_group"], []).append(data / row["image"])
    chosen = {
        0: {"fluo-256x256-small": 14, "fluo-360x360-large": 6, "tissue-purple-on-purple": 8},
        1: {"fluo-256x256-small": 14, "fluo-520x696": 4, "tissue-purple-on-white": 6},
    }
    known = [
        "fluo-256x256-small", "fluo-360x360-large", "fluo-520x696", "tissue-purple-on-purple",
        "tissue-purple-on-white", "brightfield-1024x1024-grey",
    ]  # fmt: skip
    for number, wanted in chosen.items():
        for kind in known:
            groups = list(kinds[kind].values())
            order = np.random.default_rng(number).permutation(len(groups))
            taken, judged = 0, 0
            for row in order:  # pictures of one source lie on one side
                is_training = taken < wanted.get(kind, 0)
                for image in groups[row]:
                    if is_training:
                        taken += 1
                    elif judged < ({"fluo-520x696": 5, "brightfield-1024x1024-grey": 3}.get(kind, 12)):
                        judged += 1
                    else:
                        continue
                    side = "training" if is_training else "judged"
                    _kept(folder / f"nuclei-{number}", side, kind, _grey(image, folder), _boxes(image))


def _grey(image: Path, folder: Path) -> Path:
    """A picture with one band: some kinds have three."""
    target = folder / "grey" / image.name
    target.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(image) as source:
        pixels = source.read().mean(axis=0).round().astype(np.uint8)
    with rasterio.open(
        target, "w", driver="PNG", width=pixels.shape[1], height=pixels.shape[0], count=1, dtype="uint8"
    ) as file:
        file.write(pixels, 1)
    return target


def _boxes(image: Path) -> list[list[float]]:
    from scipy.ndimage import find_objects

    with rasterio.open(image.parent.parent / "labels" / image.name) as source:
        found = find_objects(source.read(1))
    return [[x.start, y.start, x.stop, y.stop] for y, x in (each for each in found if each is not None)]


def _seals(data: Path, folder: Path) -> None:
    """Trained on 48 tiles, judged on 80 of other strips of photographs; all animals are one class."""
    tiles: dict[str, list[tuple[Path, list[list[float]]]]] = {}
    for side in ("train", "val"):
        facts = json.loads((data / side / "annotations.json").read_text())
        boxes: dict[int, list[list[float]]] = {}
        for each in facts["annotations"]:
            x, y, width, height = each["bbox"]
            boxes.setdefault(each["image_id"], []).append([x, y, x + width, y + height])
        for each in facts["images"]:
            found = boxes.get(each["id"], [])
            tiles.setdefault(str(each["strip"]), []).append((data / side / each["file_name"], found))
    strips = [tiles[key] for key in sorted(tiles)]
    order = np.random.default_rng(0).permutation(len(strips))
    taken = judged = 0
    for row in order:
        side = "training" if taken < 48 else "judged"
        for image, boxes_there in strips[row]:
            if side == "training":
                taken += 1
            elif judged >= 80:
                continue
            else:
                judged += 1
            _kept(folder / "seals-0", side, f"strip{row:02d}", image, boxes_there)


def _kept(folder: Path, side: str, place: str, image: Path, marks: Sequence[Sequence[float]]) -> None:
    """Copy an image and its marks (x, y or boxes) to their place in a set."""
    for kind in ("images", "points"):
        (folder / side / kind).mkdir(parents=True, exist_ok=True)
    stem = f"{place}__{image.stem}"
    shutil.copy(image, folder / side / "images" / f"{stem}{image.suffix}")
    header = "x,y" if not marks or len(marks[0]) == 2 else "xmin,ymin,xmax,ymax"
    lines = [header, *(",".join(f"{value:.2f}" for value in mark) for mark in marks)]
    (folder / side / "points" / f"{stem}.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
