"""Train `seals`, the model of elephant seals in aerial pictures.

    python -m recipes.seals FOLDER

FOLDER is elephant-seals: train/ and val/, each with pictures and annotations.json (Santini et al.,
doi:10.1002/aqc.70111; the data are at https://github.com/pancakereport/seal-computer-vision, MIT). ImageNet
weights of MobileNetV2 are looked for in the folder that ECODETECT_WEIGHTS names.

Boxes of `other` teach nothing. Animals that a tile's edge cuts are usually not marked: what lies within 10 px
of it teaches nothing, and neither does a box that reaches it.
"""

from __future__ import annotations

from pathlib import Path

import click

from ecodetect.annotations.options import AnnotationOptions
from ecodetect.sizes import Length
from recipes.shipping import finish, trained

DATA = "elephant-seals: tiles of aerial surveys of beaches (Santini et al., doi:10.1002/aqc.70111, MIT)"
LICENCE = (
    "weights MIT; trained on data under MIT, beginning with ImageNet weights of MobileNetV2 (torchvision,"
    " BSD-3-Clause; ImageNet's pictures are for research)"
)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("ecodetect/models"))
@click.option("--epochs", type=int, default=12, help="Training would take 24; 12 are enough.")
def main(folder: Path, out: Path, epochs: int) -> None:
    """Train on train/, validate on val/."""
    paths = [str(folder / side / part) for side in ("train", "val") for part in ("", "annotations.json")]
    done = trained(
        paths,
        out / "seals.safetensors",
        model="faster_rcnn",
        backbone="mobilenet_v2",
        asked=AnnotationOptions(ignore=("other",), edge=Length.parse("10px", name="edge")),
        split_by="*/val/*",
        epochs=epochs,
    )
    finish(
        done,
        name="seals",
        classes=("bull", "cow", "pup"),
        description="Elephant seals on beaches in aerial RGB pictures, as boxes: bulls, cows, pups.",
        data=DATA,
        licence=LICENCE,
        command="python -m recipes.seals elephant-seals",
    )


if __name__ == "__main__":
    main()
