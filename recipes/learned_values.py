"""Write into a shipped model's card which values it has learned.

    python -m recipes.learned_values NAME [FOLDER]

FOLDER holds the training data, as the model's own recipe takes it; `shrubs` is rendered again. Weights stay
as they are, bit for bit. A model that is trained again has them in its card without this.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from ecodetect.bundle import file as bundle
from ecodetect.bundle.file import Bundle
from ecodetect.bundle.value_survey import survey
from ecodetect.bundle.values import EIGHT_BIT, Measured, ValueUnit, learned_from
from ecodetect.raster.bands import stand_ins
from ecodetect.raster.finding import expand
from ecodetect.raster.reading import open_raster

# Where a model's recipe finds the pictures of its training split; all have 8 bits.
IMAGES = {
    "trees": ("train/images",),
    "trees-rgb": ("train/images",),
    "nuclei": ("train/images",),
    "seals": ("train",),
    "blood-cells": ("images",),
    "shrubs": ("train/images",),
}


def pictures(name: str, folder: Path) -> list[str]:
    """The pictures that a model was trained on."""
    found = [path for part in IMAGES[name] for path in expand([folder / part])]
    if name == "blood-cells":
        from recipes.blood_cells import UNMARKED

        named = {each for each in (folder / "train.txt").read_text().split() if each not in UNMARKED}
        found = [path for path in found if Path(path).stem in named]
    return found


def surveys(paths: list[str], bands: tuple[str, ...]) -> Iterator[tuple[Measured, ValueUnit | None]]:
    """What surveys of rasters find, with their unit."""
    for path in paths:
        with open_raster(path) as raster:
            assert raster.dtype == "uint8", path
            read = stand_ins(bands, raster.bands)
            assert read is not None, f"{path} has {raster.bands}"
            yield survey(raster, read), EIGHT_BIT


@click.command()
@click.argument("name", type=click.Choice(sorted(IMAGES)))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), required=False)
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("ecodetect/models"))
def main(name: str, folder: Path | None, out: Path) -> None:
    """Survey the training split and rewrite the card."""
    path = out / f"{name}.safetensors"
    made = bundle.read(path)
    with tempfile.TemporaryDirectory() as rendered:
        if name == "shrubs":
            from recipes.shrubs import render

            folder = Path(rendered)
            render(folder)
        if folder is None:
            raise click.UsageError(f"{name} needs the folder of its training data.")
        found = list(surveys(pictures(name, folder), made.card.bands))
    learned = learned_from(found, made.card.bands, EIGHT_BIT, made.card.scaling)
    bundle.write(path, Bundle(replace(made.card, learned=learned), made.weights))
    click.echo(f"{path}: {len(found)} pictures, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
