"""Detections of one scene in each unit of pixel values.

    python -m benchmarks.accuracy.units RASTER -m MODEL [-m MODEL ...]

RASTER has 8 bits. It is written again in each unit, with and without nodata, and scanned as it is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import rasterio

from ecodetect.bundle.value_survey import choice_of
from ecodetect.bundle.values import UNITS, ValueUnit
from ecodetect.raster.reading import open_raster
from ecodetect.scanning.files import scan

WHOLE = ("uint16", "int16", "int32", "float32")


def ways() -> Iterator[tuple[ValueUnit, str]]:
    """Units, and types that hold them."""
    for unit in UNITS:
        for dtype in WHOLE if unit.high > 1 else ("float32", "float64"):
            if dtype != "int16" or unit.high < 2**15:
                yield unit, dtype


def write(path: Path, source: Path, unit: ValueUnit, dtype: str, nodata: float | None) -> None:
    """The scene in a unit; with nodata, its upper left corner has none."""
    with rasterio.open(source) as file:
        profile, pixels = file.profile, file.read().astype(np.float64)
        names, colours, old = file.descriptions, file.colorinterp, file.nodata
    made = unit.low + pixels / 255 * (unit.high - unit.low)
    made = (np.rint(made) if np.dtype(dtype).kind in "iu" else made).astype(dtype)
    empty = np.zeros(made.shape[1:], bool) if old is None else (pixels == old).all(axis=0)
    if nodata is not None:
        empty[:40, :40] = True
        made[:, empty] = nodata
    profile |= {"driver": "GTiff", "dtype": dtype, "nodata": nodata if nodata is not None else old}
    for name in ("compress", "photometric", "interleave"):  # some are for bytes only
        profile.pop(name, None)
    with rasterio.open(path, "w", **profile) as file:
        file.write(made)
        file.colorinterp = colours
        for number, name in enumerate(names, start=1):
            if name:
                file.set_band_description(number, name)


@click.command()
@click.argument("raster", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-m", "--model", "models", multiple=True, required=True)
@click.option("--with-nodata", is_flag=True, help="Also with a corner of nodata, declared.")
def main(raster: Path, models: tuple[str, ...], with_nodata: bool) -> None:
    """Say how many each model finds in each unit."""
    plain = {name: len(scan(raster, model=name)) for name in models}
    click.echo(f"as it is: {', '.join(f'{name} {count}' for name, count in plain.items())}")
    with tempfile.TemporaryDirectory() as folder:
        for unit, dtype in ways():
            fill = -9999.0 if np.dtype(dtype).kind in "if" else 65535.0
            for nodata in (None, fill) if with_nodata else (None,):
                path = Path(folder) / "scene.tif"
                write(path, raster, unit, dtype, nodata)
                with open_raster(path) as opened:
                    choice, _ = choice_of(opened, opened.bands)
                counts = {name: len(scan(path, model=name)) for name in models}
                found = ", ".join(f"{name} {count}" for name, count in counts.items())
                what = "" if nodata is None else f", nodata {nodata:g}"
                click.echo(f"{unit!s:24} {dtype:8}{what}: taken for {choice and choice.unit}; {found}")


if __name__ == "__main__":
    main()
