"""Does transfer pay? F1 after training on 5 to 100 pictures, from scratch and from ImageNet.

    python -m benchmarks.accuracy.learning_curves run IMAGES ANNOTATIONS VAL_IMAGES VAL_ANNOTATIONS
        --within 10px -o trees.json
    python -m benchmarks.accuracy.learning_curves draw trees.json nuclei.json -o learning-curves.png

Annotations have the stems of their images. For each number and each seed pictures are drawn; `--choosing`
pictures of the validation folder choose epoch and threshold, the others are what is reported, with `scan` and
`evaluate`. The ways: MobileNetV2 from scratch, the same with ImageNet weights that stay (`--freeze`), and the
same fine-tuned; all for as many steps, whatever the number of pictures. Everything else is as `ecodetect
train` does it without a wish. Each result is written as soon as it is there, and not made again. ImageNet
weights are looked for in the folder that ECODETECT_WEIGHTS names.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import ecodetect
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.evaluation.criterion import Criterion
from ecodetect.sizes import Length
from ecodetect.training import planning
from ecodetect.training.recipe import train

WAYS: dict[str, dict[str, Any]] = {
    "from scratch": {"backbone": "mobilenet_v2", "weights": "none"},
    "ImageNet, frozen": {"backbone": "mobilenet_v2", "freeze": 4},
    "ImageNet, fine-tuned": {"backbone": "mobilenet_v2"},
}
COLOURS = ((120, 120, 120), (0, 114, 178), (213, 94, 0))


@click.group()
def main() -> None:
    """Learning curves."""


@main.command()
@click.argument("folders", nargs=4, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path))
@click.option("--within", required=True)
@click.option("--numbers", default="5,10,25,50,100", show_default=True)
@click.option("--ways", default=";".join(WAYS), show_default=True)
@click.option("--seeds", type=int, default=1, show_default=True)
@click.option("--steps", type=int, default=300, show_default=True)
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--choosing", type=int, default=8, show_default=True)
def run(
    folders: tuple[Path, Path, Path, Path],
    out: Path,
    within: str,
    numbers: str,
    ways: str,
    seeds: int,
    steps: int,
    threads: int,
    choosing: int,
) -> None:
    """Train and measure."""
    torch.set_num_threads(threads)
    planning.LEAST_STEPS = planning.MOST_STEPS = steps
    limit = Length.parse(within, name="--within")
    pool, kept = _pairs(folders[0], folders[1]), _pairs(folders[2], folders[3])
    order = np.random.default_rng(0).permutation(len(kept))
    done = {(row["way"], row["n"], row["seed"]) for row in _known(out)}
    for seed in range(seeds):
        drawn = np.random.default_rng(seed).permutation(len(pool))
        for number in map(int, numbers.split(",")):
            for way in ways.split(";"):
                if (way, number, seed) in done:
                    continue
                began = time.monotonic()
                with tempfile.TemporaryDirectory() as made:
                    chosen = {
                        "train": [pool[row] for row in drawn[:number]],
                        "val": [kept[row] for row in order[:choosing]],
                        "test": [kept[row] for row in order[choosing:]],
                    }
                    for side, pairs in chosen.items():
                        _laid_out(Path(made) / side, pairs)
                    row = _measured(Path(made), WAYS[way], seed, limit)
                # Read again: another process may do the other ways.
                rows = [*_known(out), {"way": way, "n": number, "seed": seed, **row}]
                out.write_text(json.dumps(rows, indent=1))
                click.echo(f"{way}, {number} pictures: {row}, {time.monotonic() - began:.0f} s")


def _known(out: Path) -> list[dict[str, Any]]:
    return list(json.loads(out.read_text())) if out.exists() else []


def _pairs(images: Path, annotations: Path) -> list[tuple[Path, Path]]:
    by_stem = {path.stem: path for path in annotations.iterdir()}
    return [(path, by_stem[path.stem]) for path in sorted(images.iterdir()) if path.stem in by_stem]


def _laid_out(folder: Path, pairs: list[tuple[Path, Path]]) -> None:
    for place, each in enumerate(("images", pairs[0][1].parent.name)):
        (folder / each).mkdir(parents=True)
        for pair in pairs:
            shutil.copy(pair[place], folder / each)


def _measured(folder: Path, way: dict[str, Any], seed: int, within: Length) -> dict[str, Any]:
    out = folder / "learned.safetensors"
    began = time.monotonic()
    (truth,) = (path for path in (folder / "test").iterdir() if path.name != "images")
    sides = [str(folder / side / kind) for side in ("train", "val") for kind in ("images", truth.name)]
    fitted = train(
        sides,
        out,
        seed=seed,
        within=within,
        split_by="*/val/*",
        asked=AnnotationOptions(empty_images=True),
        **way,
    ).fitted
    seconds = time.monotonic() - began
    asked = ecodetect.Settings(model=str(out))
    _, failures = ecodetect.scan_files([folder / "test" / "images"], asked, f"{folder / 'found'}/")
    assert not failures, failures
    found = ecodetect.evaluate(
        folder / "found",
        truth,
        image=folder / "test" / "images",
        criterion=Criterion("distance", within),
        empty_images=True,
    )
    interval = found.intervals["f1"]
    assert fitted is not None  # a heat map is trained step by step
    return {
        "f1": round(found.rates.f1, 4),
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
        "truths": found.rates.n_truths,
        "f1_on_training": round(fitted.training.f1, 4),
        "seconds": round(seconds),
    }


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path))
def draw(files: tuple[Path, ...], out: Path) -> None:
    """Draw the curves, a panel for each file, and print them as a table."""
    panels = [Panel(path, number) for number, path in enumerate(files)]
    sheet = Image.new("RGB", (Panel.WIDE * len(files), Panel.HIGH), (255, 255, 255))
    for panel in panels:
        panel.draw(ImageDraw.Draw(sheet))
        click.echo(panel.table())
    sheet.save(out)


class Panel:
    """Curves of one set."""

    WIDE, HIGH, LEFT, TOP, BELOW = 460, 380, 60, 60, 45

    def __init__(self, path: Path, number: int) -> None:
        self.name, self.rows = path.stem, _known(path)
        self.numbers = sorted({row["n"] for row in self.rows})
        self.x = (number * self.WIDE + self.LEFT, (number + 1) * self.WIDE - 20)
        self.y = (self.HIGH - self.BELOW, self.TOP)

    def f1s(self, way: str) -> dict[int, float]:
        """Means over the draws, by number of pictures."""
        found = {
            n: [row["f1"] for row in self.rows if (row["way"], row["n"]) == (way, n)] for n in self.numbers
        }
        return {n: float(np.mean(each)) for n, each in found.items() if each}

    def at(self, n: int, f1: float) -> tuple[float, float]:
        """Where a point lies on the sheet."""
        share = np.log(n / self.numbers[0]) / np.log(self.numbers[-1] / self.numbers[0])
        (x0, x1), (y0, y1) = self.x, self.y
        return x0 + share * (x1 - x0), y0 + f1 * (y1 - y0)

    def draw(self, pen: ImageDraw.ImageDraw) -> None:
        font, large, ink = ImageFont.load_default(13), ImageFont.load_default(17), (40, 40, 40)
        (x0, x1), (y0, _), first, last = self.x, self.y, self.numbers[0], self.numbers[-1]
        pen.text((x0, 14), f"{self.name}: F1 on {self.rows[0]['truths']:,} others", font=large, fill=ink)
        for level in np.linspace(0, 1, 6):
            pen.line([self.at(first, level), self.at(last, level)], fill=(225, 225, 225))
            pen.text((x0 - 8, self.at(first, level)[1]), f"{level:.1f}", font=font, fill=ink, anchor="rm")
        for n in self.numbers:
            pen.text((self.at(n, 0)[0], y0 + 8), str(n), font=font, fill=ink, anchor="ma")
        pen.text(((x0 + x1) / 2, y0 + 26), "pictures trained on", font=font, fill=ink, anchor="ma")
        for row, (way, colour) in enumerate(zip(WAYS, COLOURS, strict=True)):
            points = [self.at(n, f1) for n, f1 in self.f1s(way).items()]
            pen.line(points, fill=colour, width=2)
            for x, y in points:
                pen.ellipse([x - 4, y - 4, x + 4, y + 4], fill=colour)
            pen.text((x1 - 150, y0 - 70 + 18 * row), way, font=font, fill=colour)

    def table(self) -> str:
        lines = [f"| {self.name} | " + " | ".join(map(str, self.numbers)) + " |"]
        for way in WAYS:
            f1s = self.f1s(way)
            cells = [f"{f1s[n]:.3f}" if n in f1s else "" for n in self.numbers]
            lines.append(f"| {way} | " + " | ".join(cells) + " |")
        return "\n".join(lines)


if __name__ == "__main__":
    main()
