"""Train `nuclei`, the model of nuclei and cells in microscope pictures.

    python -m recipes.nuclei FOLDER

FOLDER is stage1_train of the 2018 Data Science Bowl (BBBC038, CC0; Caicedo et al. 2019,
doi:10.1038/s41592-019-0612-7) as train/ and val/, each with images/ and labels/ (one number per nucleus).
Rendered cells (sample_data/make.py, other seeds than those it is measured on) are added to the training side.
ImageNet weights of MobileNetV2 are looked for in the folder that ECODETECT_WEIGHTS names.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import click
from PIL import Image

from ecodetect.sizes import Length
from ecodetect.training import planning
from ecodetect.training.augmentation import Augmentations
from recipes.shipping import finish, trained
from sample_data import make

RENDERED, FIRST_SEED = 12, 5000
# Tissue bends, stains and lamps differ, and a microscope has no up.
AUGMENTATIONS = replace(
    Augmentations(), rotation=45.0, scale=0.5, elastic=3.0, greyscale=0.3, saturation=0.5, hue=25.0
)
# Chips of 256 px instead of 160, in as many steps of four instead of six: F1 on validation 0.916, after 24
# epochs as after 10 of the usual ones 0.911 and 0.912.
planning.LEAST_SIDE_PX = 256
planning.LEAST_STEPS = planning.MOST_STEPS = 7536
DATA = "stage1_train of the 2018 Data Science Bowl (BBBC038), 160 pictures, and 12 rendered ones of our own"
LICENCE = (
    "weights MIT; trained on data under CC0, beginning with ImageNet weights of MobileNetV2 (torchvision,"
    " BSD-3-Clause; ImageNet's pictures are for research)"
)


def render(folder: Path) -> None:
    """Pictures of cells with their boxes."""
    (folder / "images").mkdir()
    (folder / "boxes").mkdir()
    for seed in range(FIRST_SEED, FIRST_SEED + RENDERED):
        image, cells = make.render_cells(seed)
        Image.fromarray(image).save(folder / "images" / f"cells{seed}.png")
        rows = ["xmin,ymin,xmax,ymax"]
        for cell in cells:
            half = cell.diameter_px / 2
            sides = (cell.x - half, cell.y - half, cell.x + half, cell.y + half)
            rows.append(",".join(f"{side:.3f}" for side in sides))
        (folder / "boxes" / f"cells{seed}.csv").write_text("\n".join(rows) + "\n")


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("ecodetect/models"))
@click.option("--epochs", type=int)
def main(folder: Path, out: Path, epochs: int | None) -> None:
    """Train on train/ and rendered cells, validate on val/."""
    with tempfile.TemporaryDirectory() as made:
        render(Path(made))
        paths = [str(folder / side / kind) for side in ("train", "val") for kind in ("images", "labels")]
        paths += [str(Path(made) / "images"), str(Path(made) / "boxes")]
        done = trained(
            paths,
            out / "nuclei.safetensors",
            backbone="mobilenet_v2",
            split_by="*/val/*",
            within=Length.parse("6px", name="within"),
            augmentations=AUGMENTATIONS,
            epochs=epochs,
        )
    finish(
        done,
        name="nuclei",
        classes=("nucleus",),
        description="Nuclei and cells in microscope pictures, grey or RGB, as points with a diameter.",
        data=DATA,
        licence=LICENCE,
        command="python -m recipes.nuclei nuclei",
    )


if __name__ == "__main__":
    main()
