"""Flags that several commands share, each defined once; those of one subject in one decorator.

An option that exists in one command exists, with the same meaning, in every command that reads the same
thing: docs/options.md says which does, and why where one doesn't; a test holds it against the commands.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from .terminal import say, sentence

if TYPE_CHECKING:
    from ecodetect.annotations.options import AnnotationOptions
    from ecodetect.bundle.values import ValueUnit
    from ecodetect.notes import Note
    from ecodetect.sizes import Length

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

DOUBTFUL = 3  # exit code of a command that has done its work with --strict, and told a doubt
_DOUBTS = "ecodetect.doubts"  # how many were told in this call

bands = click.option(
    "--bands",
    metavar="NAMES",
    help="Use these bands, in this order: names (red,green,nir) or numbers from 1 (3,2,1).",
)
gsd = click.option(
    "--gsd",
    type=float,
    metavar="M",
    help="Set the pixel size in metres, for rasters that don't state it (JPEG, PNG).",
)
values = click.option(
    "--values",
    metavar="LOW:HIGH",
    help="Set which pixel values are black and white (0:4095).  [default: from the raster's values]",
)
nodata = click.option(
    "--nodata",
    type=float,
    metavar="VALUE",
    help="Set the value that means no data, instead of the one declared (nan: only NaN does).",
)
settings = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set an option of the detector (see `ecodetect models NAME`). Repeatable.",
)
max_memory = click.option(
    "--max-memory", metavar="SIZE", help="Use at most this much memory (2GB, 500MB), or refuse."
)
device = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Run the network on this device; auto takes a GPU if there is one.",
)
alignment = click.option(
    "--alignment",
    default="2m",
    show_default=True,
    metavar="LENGTH",
    help="Where rasters of one layer overlap, take detections of two of them within this distance for one"
    " individual.",
)
overwrite = click.option("--overwrite", is_flag=True, help="Replace an existing output.")
allow_vrt = click.option(
    "--allow-vrt",
    is_flag=True,
    help="Allow a VRT to read files outside its folder, and URLs. Only for VRTs you trust.",
)


def together(*given: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    """Several options as one decorator, in this order in the help."""

    def decorate(command: Decorated) -> Decorated:
        for each in reversed(given):
            command = each(command)
        return command

    return decorate


# Which part of a raster is searched.
aoi = together(
    click.option(
        "--aoi", metavar="VECTOR", help="Search only inside the polygons of this file (any format, any CRS)."
    ),
    click.option("--aoi-layer", metavar="NAME", help="Read this layer of the --aoi file, if it has several."),
)
# How a raster is opened: in every command that looks at its pixels.
raster = together(bands, gsd, nodata, allow_vrt)
# Where a raster lies, in commands that look at no pixel of it.
place = together(gsd, allow_vrt)


def opened_as(given: Mapping[str, Any]) -> dict[str, Any]:
    """What `raster` says, as the fields of `RasterOptions`."""
    return {
        "bands": given["bands"],
        "gsd_m": given["gsd"],
        "nodata": given["nodata"],
        "allow_vrt": given["allow_vrt"],
    }


class_column = click.option(
    "--class-column", metavar="NAME", help="Take classes from this column.  [default: found by its name]"
)


def annotations_as(*complete: str) -> Callable[[Decorated], Decorated]:
    """What annotations mean, in every command that reads them as the truth.

    complete : what the option about the ground that is annotated all over is called, without dashes.
    """
    return together(
        click.option(
            "--layer", metavar="NAME", help="Read this layer of the annotations, if their file has several."
        ),
        class_column,
        click.option(
            "--keep-spelling",
            is_flag=True,
            help="Keep classes apart that differ only in case, blanks or the coding of accents.",
        ),
        click.option(
            "--radius",
            metavar="LENGTH",
            help="Set the radius of individuals marked by a point (1.5m, 10px). For training, `contour` makes"
            " a box from the outline around each point.",
        ),
        click.option(
            *(f"--{name}" for name in complete),
            "complete",
            metavar="VECTOR|image",
            help="Say where every individual is annotated: polygons, or `image` for whole rasters.",
        ),
        click.option(
            *(f"--{name}-layer" for name in complete),
            "complete_layer",
            metavar="NAME",
            help=f"Read this layer of the --{complete[0]} file, if it has several.",
        ),
        click.option(
            "--ignore",
            multiple=True,
            metavar="FILE|LABEL",
            help="Neither learn nor judge this: a file of shapes, or a class. Repeatable.",
        ),
        click.option(
            "--ignore-edge",
            metavar="LENGTH",
            help="Neither learn nor judge anything within this distance of a raster's edge (10px, 2m).",
        ),
        click.option(
            "--empty-images",
            is_flag=True,
            help="Treat images that the annotations don't name as empty, not as unknown.",
        ),
    )


annotation = annotations_as("complete")
# What a training begins with, and the ground that it keeps for validation.
beginning = together(
    click.option(
        "-m",
        "--model",
        metavar="KIND|BUNDLE",
        help="Train this kind of detector (heatmap, yolo, …), or fine-tune this model (a file or a name)."
        "  [default: a heat map, fine-tuned from the nearest shipped model]",
    ),
    click.option(
        "--backbone",
        metavar="NAME",
        help="Use this network as encoder: torchvision's (resnet18, mobilenet_v2, …), or timm/NAME.",
    ),
    click.option(
        "--weights",
        metavar="imagenet|coco|none|FILE",
        help="Start the backbone from these weights.  [default: imagenet]",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="Set a training option of the detector (window=8m, smoothing=0.1). Repeatable.",
    ),
    click.option(
        "--split",
        "split_by",
        default="auto",
        show_default=True,
        metavar="blocks|files|PATTERN|COLUMN|none",
        help="Choose the ground kept for validation; none trains on all ground and validates nothing.",
    ),
    click.option(
        "--seed",
        type=int,
        default=0,
        show_default=True,
        help="Set the random seed, for the split and for training.",
    ),
)


def asked(given: dict[str, Any]) -> AnnotationOptions:
    """What `annotation`, `raster` and `values` say, taken out of a command's arguments."""
    from ecodetect.annotations.options import AnnotationOptions
    from ecodetect.sizes import Length

    edge, gsd_m = given.pop("ignore_edge"), given.pop("gsd")
    if gsd_m is not None and not gsd_m > 0:
        raise click.UsageError(f"--gsd must be above 0; got {gsd_m:g}.")
    names = ("layer", "class_column", "complete", "complete_layer", "ignore", "empty_images", "keep_spelling")
    return AnnotationOptions(
        radius=radius_of(given.pop("radius")),
        edge=None if edge is None else Length.parse(edge, name="--ignore-edge"),
        gsd_m=gsd_m,
        bands=given.pop("bands"),
        nodata=given.pop("nodata"),
        allow_vrt=given.pop("allow_vrt"),
        values=unit_of(given.pop("values")),
        **{name: given.pop(name) for name in names},
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


def unit_of(text: str | None) -> ValueUnit | None:
    """What --values says; raises UserError for no range."""
    from ecodetect.bundle.values import ValueUnit

    return None if text is None else ValueUnit.parse(text)


def alignment_of(text: str) -> Length:
    """What --alignment says; raises UserError for no length."""
    from ecodetect.sizes import Length

    return Length.parse(text, name="--alignment")


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

    shown : False where they are reported differently, or not at all.
    """
    told = list(notes)
    meta = click.get_current_context().find_root().meta
    meta[_DOUBTS] = meta.get(_DOUBTS, 0) + sum(note.kind == "doubt" for note in told)
    for note in told if shown else ():
        say(f"note: {sentence(note)}", to_stderr=True)


def strict(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """--strict: a command that told a doubt ends with `DOUBTFUL`, after its work is done."""

    @click.option(
        "--strict",
        is_flag=True,
        help=f"Exit with code {DOUBTFUL} if a note says that the answer may be wrong.",
    )
    @functools.wraps(command)
    def run(*arguments: Any, strict: bool, **given: Any) -> int | None:
        code = command(*arguments, **given)
        doubts = click.get_current_context().find_root().meta.get(_DOUBTS, 0)
        return DOUBTFUL if strict and doubts and not code else code

    return run


def timeout(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """--timeout: how long a file may take to open, in all that the command does."""

    @click.option(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="Refuse a file that takes longer than this many seconds to open.  [default: 60]",
    )
    @functools.wraps(command)
    def run(*arguments: Any, timeout: float | None, **given: Any) -> int | None:
        from ecodetect.guarding import guard

        with guard.timeout(timeout):
            return command(*arguments, **given)

    return run
