"""Flags that several commands share, each defined once.

flag              commands
--bands           scan, candidates, check, classify, explain
--aoi             scan, candidates
--aoi-layer       scan, candidates
--gsd             scan, candidates, check, evaluate, classify, explain
--set             scan, candidates, export
--max-memory      scan, candidates
--device          scan, classify, explain
--overwrite       scan, candidates, classify, explain, convert, evaluate, export
--keep-spelling   check, train, evaluate
--allow-vrt       scan, candidates, classify, explain, info
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from ecodetect.sizes import Length

bands = click.option(
    "--bands", metavar="NAMES", help="Bands to use, in order: names (red,green,nir) or numbers (3,2,1)."
)
aoi = click.option(
    "--aoi", metavar="VECTOR", help="Search only inside the polygons of this file (any format, any CRS)."
)
aoi_layer = click.option("--aoi-layer", metavar="NAME", help="Layer of the --aoi file, if it has several.")
gsd = click.option(
    "--gsd", type=float, metavar="M", help="Metres per pixel, where the raster doesn't say (JPEG, PNG)."
)
settings = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the detector; may be repeated.",
)
max_memory = click.option("--max-memory", metavar="SIZE", help="Stay under this much memory (2GB, 500MB).")
device = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Where a trained model runs; auto: on a GPU if there is one.",
)
keep_spelling = click.option(
    "--keep-spelling",
    is_flag=True,
    help="Classes that differ in case, blanks or the coding of accents stay apart.",
)
overwrite = click.option("--overwrite", is_flag=True, help="Replace an existing file.")
allow_vrt = click.option(
    "--allow-vrt",
    is_flag=True,
    help="Let a VRT read files outside its folder, or URLs. Only for VRTs you trust.",
)


def pairs(texts: tuple[str, ...]) -> Mapping[str, str]:
    """`name=value` texts as a mapping; a UsageError for anything else."""
    found: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise click.UsageError(f"--set takes NAME=VALUE; got '{text}'.")
        found[name.strip()] = value.strip()
    return found


def radius_of(text: str | None) -> Length | Literal["contour"] | None:
    """What --radius says; raises UserError for no length."""
    from ecodetect.sizes import Length

    if text is None:
        return None
    if text == "contour":
        return "contour"
    return Length.parse(text, name="--radius")
