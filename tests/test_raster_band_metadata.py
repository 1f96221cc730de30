"""What files say of their bands: ENVI headers, wavelengths of metadata, satellites."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from ecodetect.raster.reading import open_raster

NAMES = ("blue", "green", "red", "red_edge", "nir")
WAVES = (475.0, 560.0, 668.0, 717.0, 842.0)


def write(path: Path, bands: int = 5, **options: Any) -> Path:
    pixels = np.random.default_rng(0).random((bands, 8, 9)).astype("float32")
    with rasterio.open(
        path, "w", width=9, height=8, count=bands, dtype="float32", **{"driver": "GTiff", **options}
    ) as dataset:
        dataset.write(pixels)
    return path


def bands_of(path: Path) -> tuple[str, ...]:
    with open_raster(path) as raster:
        return raster.bands


@pytest.mark.parametrize("unit", ["Nanometers", "Micrometers", None])
@pytest.mark.parametrize("has_names", [True, False])
def test_an_envi_header(tmp_path: Path, unit: str | None, has_names: bool) -> None:
    path = write(tmp_path / "a.img", driver="ENVI")
    header = path.with_suffix(".hdr")
    scale = 0.001 if unit == "Micrometers" else 1
    kept = [line for line in header.read_text().split("\n") if not line.startswith(("band names", "Band"))]
    lines = [*kept, f"wavelength = {{{', '.join(f'{nm * scale:g}' for nm in WAVES)}}}"]
    lines += [f"wavelength units = {unit}"] if unit else []
    lines += ["band names = {one, two, three, four, five}"] if has_names else []
    header.write_text("\n".join(lines))
    assert bands_of(path) == NAMES


@pytest.mark.parametrize(
    "tags",
    [
        [{"WAVELENGTH": f"{nm}", "WAVELENGTH_UNIT": "nm"} for nm in WAVES],
        [{"wavelength": f"{nm / 1000}", "wavelength_units": "Micrometers"} for nm in WAVES],
        [{"CENTRAL_WAVELENGTH_UM": f"{nm / 1000}", "ns": "IMAGERY"} for nm in WAVES],
        [{"BANDNAME": name} for name in ("Bleu", "Vert", "Rouge", "Red edge", "Proche infrarouge")],
    ],
)
def test_metadata_of_each_band(tmp_path: Path, tags: list[dict[str, str]]) -> None:
    path = write(tmp_path / "a.tif")
    with rasterio.open(path, "r+") as dataset:
        for index, each in enumerate(tags, start=1):
            dataset.update_tags(index, **each)
    assert bands_of(path) == NAMES


def test_the_satellite_is_told_by_metadata_or_by_the_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", 3)
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("B2", "B3", "B4")
    assert bands_of(path) == ("band1", "band2", "band3")
    assert bands_of(path.rename(tmp_path / "LT05_L2SP_196027.tif")) == ("green", "red", "nir")
    path = tmp_path / "LT05_L2SP_196027.tif"
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(SPACECRAFT_ID="LANDSAT_8")
    assert bands_of(path) == ("blue", "green", "red")
