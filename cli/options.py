"""Flags that several commands share, each defined once.

flag              commands
--bands           scan, candidates, check, classify, explain
--aoi             scan, candidates
--aoi-layer       scan, candidates
--gsd             scan, candidates, check, evaluate, classify, explain
--values          scan, check, train, classify, explain
--set             scan, candidates, export
--max-memory      scan, candidates
--device          scan, classify, explain
--overwrite       scan, candidates, classify, explain, convert, evaluate, export
--allow-vrt       scan, candidates, classify, explain, info
--strict          all that say notes
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from ecodetect.notes import Note
    from ecodetect.sizes import Length
    from ecodetect.values import Unit

DOUBTFUL = 3  # exit code of a command that has done its work with --strict, and told a doubt
_DOUBTS = "ecodetect.doubts"  # how many were told in this call

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
values = click.option(
    "--values",
    metavar="LOW:HIGH",
    help="What counts as black and white in the raster (0:4095); told by its values if not given.",
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


def unit_of(text: str | None) -> Unit | None:
    """What --values says; raises UserError for no range."""
    from ecodetect.values import Unit

    return None if text is None else Unit.parse(text)


def radius_of(text: str | None) -> Length | Literal["contour"] | None:
    """What --radius says; raises UserError for no length."""
    from ecodetect.sizes import Length

    if text is None:
        return None
    if text == "contour":
        return "contour"
    return Length.parse(text, name="--radius")


def tell(notes: Iterable[Note], *, shown: bool = True) -> None:
    """Print notes on stderr, and remember those of doubt for --strict.

    shown : False where they are told otherwise, or nothing is to be said.
    """
    told = list(notes)
    meta = click.get_current_context().find_root().meta
    meta[_DOUBTS] = meta.get(_DOUBTS, 0) + sum(note.kind == "doubt" for note in told)
    for note in told if shown else ():
        click.echo(f"note: {note}", err=True)


def strict(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """--strict: a command that told a doubt ends with `DOUBTFUL`, its work done all the same."""

    @click.option(
        "--strict",
        is_flag=True,
        help=f"End with exit code {DOUBTFUL} where a note says that the answer may be wrong.",
    )
    @functools.wraps(command)
    def run(*arguments: Any, strict: bool, **given: Any) -> int | None:
        code = command(*arguments, **given)
        doubts = click.get_current_context().find_root().meta.get(_DOUBTS, 0)
        return DOUBTFUL if strict and doubts and not code else code

    return run
