"""`ecodetect explain`: what a classifier's answer at a place depends on, as a picture."""

from __future__ import annotations

from typing import Any

import click

from . import options
from .terminal import say


@click.command()
@click.argument("image", metavar="IMAGE")
@click.option("-m", "--model", required=True, metavar="BUNDLE", help="Explain this trained classifier.")
@click.option(
    "--at",
    metavar="X,Y",
    help="Explain this place, in pixels of the raster. Leave it out for a picture of one individual.",
)
@click.option("--crs", metavar="CRS", help="Read --at in this CRS (EPSG:4326 for longitude,latitude).")
@click.option("-o", "--out", required=True, metavar="PNG", help="Write the picture to this file.")
@click.option("--examples", metavar="FOLDER", help="Also show the most similar images of this folder.")
@options.raster
@options.values
@options.device
@options.overwrite
@options.timeout
@options.strict
def explain(
    image: str, model: str, at: str | None, crs: str | None, out: str, overwrite: bool, **how: Any
) -> None:
    """Draw what a classifier's answer depends on.

    The picture shows how the score falls where the window is covered, which features speak for the answer
    (Grad-CAM), and, with --examples, which images of a folder it considers most similar. It works for models
    trained with -m sliding_window.

    \b
    Examples:
      ecodetect explain ortho.tif -m species.safetensors --at 512,300 -o why.png
      ecodetect explain ortho.tif -m species.safetensors --at 2.35,48.85 --crs EPSG:4326 -o why-there.png
      ecodetect explain oak/17.jpg -m species.safetensors -o why-oak.png --examples training/
    """
    from ecodetect.classification.explaining import explain as run
    from ecodetect.classification.explaining import writable

    if at is None and crs is not None:
        raise click.UsageError("--crs says in which CRS --at is, but there is no --at.")
    writable(out, overwrite=overwrite)
    gsd, values = how.pop("gsd"), options.unit_of(how.pop("values"))
    place = None if at is None else _place(at)
    done = run(image, model, at=place, crs=crs, gsd_m=gsd, values=values, **how)
    options.tell(done.notes)
    done.draw(out)
    for name, score in done.scores[:3]:
        say(f"{score:.3f} {name}")
    for each in done.examples:
        say(f"similarity {each.similarity:.3f}: {each.label or each.path.name} ({each.path})")
    say(f"drawn in {out}")


def _place(text: str) -> tuple[float, float]:
    """`512,300` as two numbers."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise click.UsageError(f"--at takes two numbers, X,Y; got '{text}'.") from None
    return x, y
