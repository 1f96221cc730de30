"""`ecodetect convert`: a layer or annotations in another format."""

from __future__ import annotations

from typing import Any

import click

from . import options
from .terminal import say


@click.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--image", metavar="RASTER", help="The raster that the features belong to.")
@click.option("--layer", metavar="NAME", help="Which layer, where IN has several.")
@options.class_column
@options.place
@options.overwrite
@options.timeout
@options.strict
def convert(source: str, target: str, **how: Any) -> None:
    """Convert a layer or annotations to another format; the suffix of OUT names it.

    CSV, COCO, Pascal VOC, YOLO, CVAT, Label Studio and label images are in pixels of a raster: with --image
    they come onto the map, and a map comes into pixels. What is left out is said, and why.

    \b
    ecodetect convert crowns.gpkg crowns.csv --image ortho.tif --layer crowns
    ecodetect convert labels/ortho.txt trees.geojson --image ortho.tif
    """
    say_converted(source, target, gsd_m=how.pop("gsd"), **how)


def say_converted(source: str, target: str, **how: Any) -> None:
    """Convert, and say what came of it; `how` is what `converting.convert` takes."""
    from ecodetect.converting import convert as run

    done = run(source, target, **how)
    options.tell(done.notes)
    unit = "feature" if done.features == 1 else "features"
    say(f"{done.features} {unit} written to {done.path}")
