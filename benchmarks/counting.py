"""Mean absolute error of counts after training on N pictures: the protocol of the VGG cells.

    python counting.py IMAGES POINTS -n 50 --seeds 3 [--test IMAGES POINTS]

IMAGES is a folder of pictures, POINTS one of CSV files (x, y) with the same stems. For each seed N pictures
are drawn; a fifth of them chooses the epoch and the threshold, the rest is trained on. Counted are peaks, at
the threshold "count", in the pictures of --test, or in all that were not drawn. Of Lempitsky and Zisserman
2010.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import torch

import ecodetect
from ecodetect import formats
from ecodetect.training.recipe import train


def counts(images: list[Path], bundle: Path, threshold: str) -> np.ndarray:
    """Detections in each picture."""
    return np.array(
        [len(ecodetect.scan(path, model=bundle, options={"threshold": threshold})) for path in images]
    )


def truth(images: list[Path], points: Path) -> np.ndarray:
    return np.array([len(formats.read(points / f"{path.stem}.csv")) for path in images])


@click.command()
@click.argument("images", type=click.Path(exists=True, path_type=Path))
@click.argument("points", type=click.Path(exists=True, path_type=Path))
@click.option("--test", nargs=2, type=click.Path(exists=True, path_type=Path))
@click.option("-n", "number", type=int, default=50, show_default=True)
@click.option("--seeds", type=int, default=3, show_default=True)
@click.option("--first-seed", type=int, default=0, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for the models.")
def main(
    images: Path,
    points: Path,
    test: tuple[Path, Path] | None,
    number: int,
    seeds: int,
    first_seed: int,
    keep: Path | None,
) -> None:
    """Train and count, once for each seed."""
    torch.set_num_threads(2)
    every = sorted(path for path in images.iterdir() if (points / f"{path.stem}.csv").is_file())
    errors = []
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
            done = train([folder], out, seed=seed, overwrite=True)
            if test:
                where = sorted(path for path in test[0].iterdir() if path.suffix == every[0].suffix)
                there = truth(where, test[1])
            else:
                where = [path for row, path in enumerate(every) if row not in set(drawn)]
                there = truth(where, points)
            for threshold in ("count", "f1"):
                off = counts(where, out, threshold) - there
                click.echo(
                    f"seed {seed}, n {number}, threshold {threshold}: MAE {np.abs(off).mean():.2f}, bias"
                    f" {off.mean():+.2f}, {len(where)} pictures with {there.sum():,} cells, validation F1"
                    f" {done.fitted.validation.f1:.3f}, {time.monotonic() - began:.0f} s"
                )
                if threshold == "count":
                    errors.append(float(np.abs(off).mean()))
    click.echo(
        f"MAE {np.mean(errors):.2f} ± {np.std(errors):.2f} (mean and standard deviation of {seeds} draws)"
    )


if __name__ == "__main__":
    main()
