"""Train `trees` and `trees-rgb`, the models of trees in aerial images of 0.6 m.

    python -m recipes.trees FOLDER

FOLDER is trees-naip: train/ and val/, each with images/ and points.gpkg (Ventura et al. 2024; the data are at
https://github.com/jonathanventura/urban-tree-detection-data, CC BY 4.0). ImageNet weights of MobileNetV2 are
looked for in the folder that ECODETECT_WEIGHTS names. `--without CITY` leaves a city out of training and of
validation and says how good the model is there. `trees-rgb` begins with what `trees` has learned.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from ecodetect.annotations.options import AnnotationOptions
from ecodetect.sizes import Length
from recipes.shipping import finish, trained

CITIES = ("claremont", "long_beach", "palm_springs", "riverside", "santa_monica")
WITHIN = Length.parse("6m", name="within")  # as in the publication
# Crowns of 4 to 15 px at the images' own 0.6 m are few pixels for a network made for ImageNet: read finer, F1
# on left-out tiles was 0.01 higher after as many pixels seen.
GSD = 0.42
DATA = "trees-naip: NAIP 2020, five cities of Southern California (Ventura et al. 2024, CC BY 4.0)"
LICENCE = (
    "weights MIT; trained on data under CC BY 4.0, beginning with ImageNet weights of MobileNetV2"
    " (torchvision, BSD-3-Clause; ImageNet's pictures are for research)"
)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("ecodetect/models"))
@click.option("--bands", default="red,green,blue,nir", help="red,green,blue for trees-rgb.")
@click.option("--without", type=click.Choice(CITIES), help="A city to measure on, not to learn from.")
@click.option("--epochs", type=int, help="Default: 12 of the 24 that training would take; 4 for trees-rgb.")
def main(folder: Path, out: Path, bands: str, without: str | None, epochs: int | None) -> None:
    """Train on train/, validate on val/."""
    name = "trees" if "nir" in bands else "trees-rgb"
    paths = [
        text
        for side in ("train", "val")
        for city in CITIES
        if city != without
        for text in (str(folder / side / "images" / f"{city}*.tif"), str(folder / side / "points.gpkg"))
    ]
    target = out / f"{name}.safetensors"
    if without is not None:
        target = Path(tempfile.gettempdir()) / f"{name}-without-{without}.safetensors"
    begin, usual = {"backbone": "mobilenet_v2"}, 12
    if name == "trees-rgb":
        begin, usual = {"model": str(out / "trees.safetensors")}, 4
    done = trained(
        paths,
        target,
        asked=AnnotationOptions(empty_images=True, bands=bands),
        split_by="*/val/*",
        gsd=GSD,
        within=WITHIN,
        epochs=epochs or usual,
        **begin,
    )
    finish(
        done,
        name=name,
        classes=("tree",),
        description="Single trees, streets and gardens mostly, as points at their centres.",
        data=DATA,
        licence=LICENCE,
        command=f"python -m recipes.trees trees-naip --bands {bands}",
        gsd_range=(0.45, 0.75),
    )


if __name__ == "__main__":
    main()
