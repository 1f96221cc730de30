"""Train `shrubs`, the model of shrubs in dry open land, on rendered scenes only.

    python -m recipes.shrubs

The scenes are those of sample_data/make.py with other seeds than `dryland.tif`, in two seasons, under many
suns.
ImageNet weights of MobileNetV2 are looked for in the folder that ECODETECT_WEIGHTS names.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
import rasterio
from rasterio.transform import Affine

from ecodetect.annotations.options import AnnotationOptions
from ecodetect.sizes import Length
from recipes.shipping import finish, trained
from sample_data import make

SCENES, FIRST_SEED = {"train": 20, "val": 5}, {"train": 7000, "val": 8000}
SIDE_PX = 560
# Between the pixels of a drone's picture and those of good satellites; the model reads all at one.
GSDS = (0.12, 0.16, 0.2, 0.2, 0.25)
DATA = "rendered scenes of sample_data/make.py, 20 of 0.5 to 2 ha; no photograph"
LICENCE = (
    "weights MIT; trained on rendered scenes (MIT), beginning with ImageNet weights of MobileNetV2"
    " (torchvision, BSD-3-Clause; ImageNet's pictures are for research)"
)


def render(folder: Path) -> None:
    """Scenes as GeoTIFFs, apart from each other, with boxes about their shrubs."""
    for side, count in SCENES.items():
        for kind in ("images", "boxes"):
            (folder / side / kind).mkdir(parents=True)
        for seed in range(FIRST_SEED[side], FIRST_SEED[side] + count):
            rng = np.random.default_rng(seed)
            gsd = GSDS[seed % len(GSDS)]
            hectares = (SIDE_PX * gsd) ** 2 / 1e4
            image, shrubs = make.render_dryland(
                seed,
                width=SIDE_PX,
                height=SIDE_PX,
                gsd_m=gsd,
                shrubs=max(4, round(rng.uniform(10, 28) * hectares)),
                bushes=round(rng.uniform(120, 350) * hectares),
                season=str(rng.choice(["dry", "green"])),
                sun_azimuth_deg=rng.uniform(90, 270),
                sun_elevation_deg=rng.uniform(28, 65),
                exposure=rng.uniform(0.75, 1.2),
            )
            east, north = 500_000 + 1000 * (seed % 100), 4_100_000 + 1000 * (seed // 1000)
            place = Affine(gsd, 0, east, 0, -gsd, north)
            name = folder / side / "images" / f"scene{seed}.tif"
            with rasterio.open(
                name, "w", driver="GTiff", dtype="uint8", count=3, width=SIDE_PX, height=SIDE_PX,
                crs=make.CRS, transform=place, nodata=make.NODATA, photometric="RGB", compress="deflate",
            ) as raster:  # fmt: skip
                raster.write(image[:3])
            rows = ["xmin,ymin,xmax,ymax"]
            rows += [",".join(f"{side:.2f}" for side in shrub.crown.bounds) for shrub in shrubs]
            (folder / side / "boxes" / f"scene{seed}.csv").write_text("\n".join(rows) + "\n")


@click.command()
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("ecodetect/models"))
@click.option("--epochs", type=int)
def main(out: Path, epochs: int | None) -> None:
    """Train on rendered scenes, validate on others."""
    with tempfile.TemporaryDirectory() as folder:
        render(Path(folder))
        done = trained(
            [folder],
            out / "shrubs.safetensors",
            asked=AnnotationOptions(bands="red,green,blue"),
            backbone="mobilenet_v2",
            within=Length.parse("1.5m", name="within"),
            epochs=epochs,
        )
    finish(
        done,
        name="shrubs",
        classes=("shrub",),
        description="Shrubs of 2 to 8 m in dry open land, as points with a diameter. Learned from rendered"
        " scenes only: on real ground a start for fine-tuning, not a count.",
        data=DATA,
        licence=LICENCE,
        command="python -m recipes.shrubs",
        gsd_range=(0.08, 0.35),
    )


if __name__ == "__main__":
    main()
