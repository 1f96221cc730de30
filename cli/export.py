"""`ecodetect export`: a model in ONNX; a layer as `convert` does."""

from __future__ import annotations

import click

from . import options
from .terminal import say


@click.command()
@click.argument("source", metavar="BUNDLE|LAYER")
@click.option(
    "-o", "--out", required=True, metavar="OUT", help="Write to this file (MODEL.onnx, or a layer)."
)
@options.settings
@click.option(
    "--tile",
    type=int,
    metavar="PX",
    help="Fix the input to one image of this side in pixels, as Deepness needs it; `scan` can't use it.",
)
@click.option("--image", metavar="RASTER", help="Name the raster that the features of a layer belong to.")
@click.option("--layer", metavar="NAME", help="Export this layer, if the file has several.")
@options.class_column
@options.place
@options.overwrite
@options.timeout
@options.strict
def export(
    source: str,
    out: str,
    settings: tuple[str, ...],
    tile: int | None,
    image: str | None,
    layer: str | None,
    class_column: str | None,
    gsd: float | None,
    allow_vrt: bool,
    overwrite: bool,
) -> None:
    """Export a model to ONNX, for `scan` without torch and for other programs.

    The file holds the network that `scan` runs, and its card. It is written only if ONNX Runtime gives the
    same answers as torch. A layer is exported as by `ecodetect convert`.

    \b
    Examples:
      ecodetect export trees -o trees.onnx
      ecodetect scan ortho.tif -m ./trees.onnx
    """
    from ecodetect.models.choosing import SUFFIXES

    if not out.lower().endswith((".onnx", ".safetensors")) and not source.lower().endswith(SUFFIXES):
        from .convert import say_converted

        say_converted(
            source,
            out,
            image=image,
            layer=layer,
            class_column=class_column,
            gsd_m=gsd,
            allow_vrt=allow_vrt,
            overwrite=overwrite,
        )
        return
    from ecodetect.exporting import export as run

    done = run(source, out, options=options.pairs(settings), tile_px=tile, overwrite=overwrite)
    say(
        f"{done.path}: {done.megabytes:.2f} MB, outputs {', '.join(done.outputs)}; ONNX Runtime's answers"
        f" differ from torch's by at most {done.difference:.1e} ({done.relative:.1e} of the largest value)"
    )
