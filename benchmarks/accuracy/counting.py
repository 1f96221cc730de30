"""Mean absolute error of counts after training on N pictures: the protocol of the VGG cells.

    python -m benchmarks.accuracy.counting IMAGES POINTS -n 50 --seeds 3 [--test IMAGES POINTS]

IMAGES is a folder of pictures, POINTS one of CSV files (x, y) with the same stems. For each seed N pictures
are drawn, and all of them trained on. The pictures of --test, or all that were not drawn, are counted in
three ways: peaks at the threshold "count", peaks at the threshold "f1", and the sum of the map of density,
which networks have that learn individuals closer than 4 px. Of Lempitsky and Zisserman 2010.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch

import ecodetect
from ecodetect.formats import files as formats
from ecodetect.training.augmentation import Augmentations
from ecodetect.training.recipe import train

# Pictures of one microscope: cells are as large and as bright in all, and how bright says how many overlap.
AUGMENTATIONS = replace(
    Augmentations(), rotation=0, scale=0, blur=0, noise=0.01, gamma=0.1, contrast=0.1, brightness=0.05,
    gain=0.1, hue=0, saturation=0, greyscale=0,
)  # fmt: skip


def counts(images: list[Path], bundle: Path) -> dict[str, np.ndarray]:
    """Individuals in each picture, in each of the ways to count them."""
    found = {}
    for threshold in ("count", "f1"):
        with tempfile.TemporaryDirectory() as folder:
            asked = ecodetect.Settings(model=str(bundle), options={"threshold": threshold})
            summaries, _ = ecodetect.scan_files(images, asked, f"{folder}/")
        found[f"peaks, threshold {threshold}"] = np.array([each.total for each in summaries])
    if summaries[0].expected is not None:
        found["sum of the density"] = np.array([sum((each.expected or {}).values()) for each in summaries])
    return found


def truth(images: list[Path], points: Path) -> np.ndarray:
    """The annotated number of each image, (N,), from a table of points per image."""
    return np.array([len(formats.read(points / f"{path.stem}.csv")) for path in images])


@click.command()
@click.argument("images", type=click.Path(exists=True, path_type=Path))
@click.argument("points", type=click.Path(exists=True, path_type=Path))
@click.option("--test", nargs=2, type=click.Path(exists=True, path_type=Path))
@click.option("-n", "number", type=int, default=50, show_default=True)
@click.option("--seeds", type=int, default=3, show_default=True)
@click.option("--first-seed", type=int, default=0, show_default=True)
@click.option("--epochs", type=int, default=24, show_default=True, help="What the recipe takes.")
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for the models.")
def main(
    images: Path,
    points: Path,
    test: tuple[Path, Path] | None,
    number: int,
    seeds: int,
    first_seed: int,
    epochs: int,
    threads: int,
    keep: Path | None,
) -> None:
    """Train and count, once for each seed."""
    torch.set_num_threads(threads)
    every = sorted(path for path in images.iterdir() if (points / f"{path.stem}.csv").is_file())
    errors: dict[str, list[float]] = {}
    for seed in range(first_seed, first_seed + seeds):
        drawn = sorted(np.random.default_rng(seed).choice(len(every), number, replace=False))
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as made:
            folder, out = Path(made), Path(keep or made) / f"counting-{number}-{seed}.safetensors"
            for kind in ("images", "points"):
                (folder / kind).mkdir()
            for row in drawn:
                shutil.copy(every[row], folder / "images")
                shutil.copy(points / f"{every[row].stem}.csv", folder / "points")
            done = train(
                [folder],
                out,
                model="heatmap",  # from scratch: nothing but the pictures drawn has been seen
                split_by="none",
                seed=seed,
                epochs=epochs,
                augmentations=AUGMENTATIONS,
                overwrite=True,
            )
            if test:
                where = sorted(path for path in test[0].iterdir() if path.suffix == every[0].suffix)
                there = truth(where, test[1])
            else:
                where = [path for row, path in enumerate(every) if row not in set(drawn)]
                there = truth(where, points)
            for way, count in counts(where, out).items():
                off = count - there
                errors.setdefault(way, []).append(float(np.abs(off).mean()))
                click.echo(
                    f"seed {seed}, n {number}, {way}: MAE {errors[way][-1]:.2f}, bias {off.mean():+.2f}"
                )
            assert done.fitted is not None  # a heat map is trained step by step
            click.echo(
                f"{len(where)} pictures with {there.sum():,} cells, F1 on the drawn ones"
                f" {done.fitted.training.f1:.3f}, {time.monotonic() - began:.0f} s"
            )
    for way, each in errors.items():
        click.echo(
            f"{way}: MAE {np.mean(each):.2f} ± {np.std(each):.2f} (mean and deviation of {seeds} draws)"
        )


if __name__ == "__main__":
    main()
