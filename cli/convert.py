"""`ecodetect convert`: a layer or annotations in another format."""

from __future__ import annotations

from typing import Any

import click

from . import options
from .terminal import say


@click.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--image", metavar="RASTER", help="Name the raster that the features belong to.")
@click.option("--layer", metavar="NAME", help="Read this layer, if IN has several.")
@options.class_column
@options.place
@options.overwrite
@options.timeout
@options.strict
def convert(source: str, target: str, **how: Any) -> None:
    """Convert a layer or annotations to another format; the suffix of OUT names it.

    CSV, COCO, Pascal VOC, YOLO, CVAT, Label Studio and label images are in pixels of a raster: --image places
    them on the map, or a map in pixels. Notes say what is left out, and why.

    \b
    Examples:
      ecodetect convert crowns.gpkg crowns.csv --image ortho.tif --layer crowns
      ecodetect convert labels/ortho.txt trees.geojson --image ortho.tif
    """
    say_converted(source, target, gsd_m=how.pop("gsd"), **how)


def say_converted(source: str, target: str, **how: Any) -> None:
    """Convert, and report the result; `how` is what `converting.convert` takes."""
    from ecodetect.converting import convert as run

    done = run(source, target, **how)
    options.tell(done.notes)
    unit = "feature" if done.features == 1 else "features"
    say(f"{done.features} {unit} written to {done.path}")
