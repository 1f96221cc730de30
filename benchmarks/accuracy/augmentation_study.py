"""The lectures' study of augmentation on patches.

    python -m benchmarks.accuracy.augmentation_study FOLDER [--seeds 1]

FOLDER holds pictures in folders by class, in train/ and val/. The lectures trained a small network on twelve
augmented sets of MNIST and compared their average and best; here the twelve are on pictures of your own. Each
trains the small network from scratch and is judged by the share of validation that it names right.

original: as they are. centring: what stands out is brought to the middle. elastic: bends of 3 px.
translation: by at most an eighth of the side. rotation: by at most 20 degrees. Two and three names: both and
all; elastic-elastic: bends of 6 px. Nothing else happens to the pictures.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.measuring import machine, table
from ecodetect.training.augmentation import NONE
from ecodetect.training.recipe import train

ALONE: dict[str, dict[str, Any]] = {
    "centring": {"centring": True},
    "elastic": {"elastic": 3.0},
    "translation": {"translation": 0.125},
    "rotation": {"rotation": 20.0},
}
SETS = (
    "original", "centring", "elastic", "translation", "rotation", "elastic-centring", "rotation-centring",
    "translation-elastic", "translation-rotation", "rotation-elastic", "rotation-elastic-centring",
    "elastic-elastic",
)  # fmt: skip


def strengths(name: str) -> dict[str, Any]:
    """What a set's name asks for."""
    if name == "elastic-elastic":
        return {"elastic": 6.0}
    return {key: value for part in name.split("-") for key, value in ALONE.get(part, {}).items()}


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--seeds", type=int, default=1, show_default=True)
@click.option("--epochs", type=int, help="Of 24; all take as many.")
def main(folder: Path, seeds: int, epochs: int | None) -> None:
    """Train on each set and compare."""
    rows, every = [], []
    for name in SETS:
        right = []
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as temporary:
                done = train(
                    [folder],
                    Path(temporary) / "study.safetensors",
                    seed=seed,
                    epochs=epochs,
                    augmentations=replace(NONE, **strengths(name)),
                )
            assert done.fitted is not None  # a network from scratch is trained step by step
            right.append(done.fitted.validation.recall)  # each picture has one answer
            n = done.fitted.validation.n_truths
        every.append(float(np.mean(right)))
        rows.append([name, f"{np.mean(right):.3f}", f"{np.max(right):.3f}"])
        click.echo(f"{name}: {np.mean(right):.3f}", err=True)
    click.echo(f"{folder.name}: n = {n} pictures of validation, {seeds} seeds; {machine()}\n")
    click.echo(table(["set", "accuracy, mean", "best"], rows))
    click.echo(
        f"\naverage of the sets {np.mean(every):.3f}, best {max(every):.3f} ({SETS[int(np.argmax(every))]})"
    )


if __name__ == "__main__":
    main()
