"""Train `blood-cells`, the model of cells in pictures of blood smears.

    python -m recipes.blood_cells FOLDER

FOLDER is BCCD: images/, annotations/ (Pascal VOC), train.txt and val.txt (the data are at
https://github.com/Shenggan/BCCD_Dataset, MIT). ImageNet weights of MobileNetV2 are looked for in the folder
that ECODETECT_WEIGHTS names.

Ten pictures have no red cell marked although they are full of them: they would teach that red cells are
background, so neither training nor the choice of thresholds sees them.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import click

from recipes.shipping import finish, trained

UNMARKED = frozenset(
    f"BloodImage_00{number}" for number in (134, 147, 150, 152, 224, 250, 258, 268, 330, 350)
)
DATA = "BCCD: stained blood smears, 199 of the 205 pictures of its train split (MIT)"
LICENCE = (
    "weights MIT; trained on data under MIT, beginning with ImageNet weights of MobileNetV2 (torchvision,"
    " BSD-3-Clause; ImageNet's pictures are for research)"
)


def sides(folder: Path, out: Path) -> list[str]:
    """Pictures and boxes of train and val, each in a folder of its own, without the unmarked ones."""
    paths = []
    for side in ("train", "val"):
        names = [name for name in (folder / f"{side}.txt").read_text().split() if name not in UNMARKED]
        for kind, ending in (("images", "jpg"), ("annotations", "xml")):
            (out / side / kind).mkdir(parents=True)
            for name in names:
                shutil.copy(folder / kind / f"{name}.{ending}", out / side / kind)
            paths.append(str(out / side / kind))
    return paths


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("ecodetect/models"))
@click.option("--epochs", type=int, default=20, help="Training would take 24; 20 are enough.")
def main(folder: Path, out: Path, epochs: int | None) -> None:
    """Train on the pictures of train.txt, validate on those of val.txt."""
    with tempfile.TemporaryDirectory() as made:
        done = trained(
            sides(folder, Path(made)),
            out / "blood-cells.safetensors",
            model="yolo",
            backbone="mobilenet_v2",
            split_by="*/val/*",
            epochs=epochs,
        )
    finish(
        done,
        name="blood-cells",
        classes=("Platelets", "RBC", "WBC"),
        description="Cells in stained blood smears, as boxes: red cells, white cells, platelets.",
        data=DATA,
        licence=LICENCE,
        command="python -m recipes.blood_cells bccd",
    )


if __name__ == "__main__":
    main()
