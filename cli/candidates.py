"""`ecodetect candidates`: write candidate patches as a layer."""

from __future__ import annotations

from typing import Any

import click

from . import options
from .scan import ProgressBar, report


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "-m", "--model", default="threshold", show_default=True, help="Propose candidates with this detector."
)
@click.option(
    "-o", "--out", metavar="OUT", help="Write to this file or folder.  [default: IMAGE.candidates.geojson]"
)
@click.option(
    "--side",
    metavar="LENGTH",
    help="Set the side of every patch (64px, 8m).  [default: the object's width and a fifth more]",
)
@options.raster
@options.aoi
@options.settings
@options.device
@options.max_memory
@options.alignment
@options.overwrite
@click.option("-q", "--quiet", is_flag=True, help="Print neither progress nor summary.")
@options.timeout
@options.strict
def candidates(
    images: tuple[str, ...],
    model: str,
    out: str | None,
    side: str | None,
    settings: tuple[str, ...],
    device: str,
    max_memory: str | None,
    alignment: str,
    overwrite: bool,
    quiet: bool,
    **raster: Any,
) -> int:
    """Write candidate patches as a vector layer: the outline of each candidate and a square around it.

    Both have the candidate's id; the column `shape` says which is which.

    \b
    Examples:
      ecodetect candidates ortho.tif -o patches.gpkg --side 8m --set min_area=2m2
    """
    from ecodetect.scanning.files import scan_files
    from ecodetect.scanning.layout import read_size
    from ecodetect.scanning.patches import PatchSize
    from ecodetect.scanning.settings import Output, Settings
    from ecodetect.sizes import Length

    asked = Settings(
        model=model,
        options=options.pairs(settings),
        device=device,
        max_memory=None if max_memory is None else read_size(max_memory),
        aoi=raster["aoi"],
        aoi_layer=raster["aoi_layer"],
        **options.opened_as(raster),
    )
    patches = PatchSize(None if side is None else Length.parse(side, name="--side"))
    output = Output(overwrite=overwrite, patches=patches, alignment=options.alignment_of(alignment))
    with ProgressBar(hidden=quiet) as bar:
        summaries, failures = scan_files(images, asked, out, output, bar.show)
    return report(summaries, failures, quiet=quiet)
