"""`ecodetect count`: individuals by polygon or cell, as a layer, a table and a raster of density."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ecodetect.wording import figure

from . import options
from .terminal import say, say_json

if TYPE_CHECKING:
    from ecodetect.estimation.counting import Counts

_MOST_SHOWN = 20  # polygons or cells in the summary


@click.command()
@click.argument("layer", metavar="LAYER")
@click.option("--by", metavar="POLYGONS", help="Count in each polygon of this file (any format, any CRS).")
@click.option("--by-layer", metavar="NAME", help="Read this layer of the --by file, if it has several.")
@click.option("--grid", metavar="LENGTH", help="Count in square cells of this side instead (50m, 200px).")
@click.option(
    "-o",
    "--out",
    metavar="OUT",
    help="Write polygons or cells with their counts to this file.  [default: LAYER.counts.gpkg]",
)
@click.option("--table", metavar="CSV", help="Write a row for each polygon or cell, class and source.")
@click.option("--density", metavar="TIF", help="Write the density of cells as a GeoTIFF, a band per class.")
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="RASTER",
    help="Name the raster (or folder) that was scanned, if it isn't beside LAYER. Repeatable.",
)
@click.option("--area", metavar="VECTOR", help="Say where was searched, if not in the whole raster.")
@click.option("--layer", "layer_name", metavar="NAME", help="Read this layer, if LAYER has several.")
@options.class_column
@options.allow_vrt
@options.overwrite
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@options.timeout
@options.strict
def count(
    layer: str,
    out: str | None,
    table: str | None,
    density: str | None,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Count the individuals of a layer by polygon or in a grid: number, density, mean size, share searched.

    LAYER is what `scan` wrote, or any layer of individuals. The ground searched is that of the rasters beside
    it. Counts are of detections: `ecodetect plots` and `ecodetect estimate` tell how far the truth is.

    \b
    Examples:
      ecodetect count trees.gpkg --by districts.gpkg --table trees.csv
      ecodetect count trees.gpkg --grid 50m --density trees.tif
    """
    from pathlib import Path

    from ecodetect.estimation.counting import count as run
    from ecodetect.estimation.counts_files import check_outputs, write_layer, write_raster, write_table

    source = Path(layer.split("|")[0])
    target = Path(out) if out is not None else source.with_name(f"{source.stem}.counts.gpkg")
    others = [None if path is None else Path(path) for path in (table, density)]
    check_outputs(target, *others, overwrite=overwrite)
    if density is not None and given["grid"] is None:
        raise click.UsageError("--density needs the square cells of --grid.")
    found = run(layer, **given)
    notes = [*found.notes, *write_layer(found, target, overwrite=overwrite)]
    if others[0] is not None:
        write_table(found, others[0], overwrite=overwrite)
    if others[1] is not None:
        write_raster(found, others[1], overwrite=overwrite)
    options.tell(notes, shown=not as_json)
    if as_json:
        say_json(_as_json(found, notes, target, *others))
        return
    say(*_lines(found), *(f"written to {path}" for path in (target, *others) if path is not None))


def _lines(found: Counts) -> list[str]:
    """The summary for people."""
    unit = "hectare" if found.has_metres else "million pixels"
    what = "polygons" if found.cells is None else "cells"
    lines = [f"{found.inside:,} of {found.total:,} individuals in {len(found.names):,} {what}"]
    if found.cells is not None and len(found.names) > _MOST_SHOWN:
        return lines
    for row, name in list(enumerate(found.names))[:_MOST_SHOWN]:
        each = []
        for place, label in enumerate(found.classes):
            dense = found.density[row, place]
            per = "" if dense != dense else f" ({figure(float(dense))} per {unit})"
            each.append(f"{label} {found.individuals[row, place]:,}{per}")
        share = found.searched[row]
        seen = "" if share != share else f"; {share:.0%} searched"
        lines.append(f"  {name}: {', '.join(each)}{seen}")
    if len(found.names) > _MOST_SHOWN:
        lines.append(f"  … and {len(found.names) - _MOST_SHOWN:,} more")
    return lines


def _as_json(found: Counts, notes: list[Any], *paths: Any) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return None if value != value else round(float(value), 6)

    ha, m = ("ha", "m") if found.has_metres else ("mpx", "px")
    return {
        "paths": [str(path) for path in paths if path is not None],
        "individuals": found.total,
        "inside": found.inside,
        "classes": list(found.classes),
        "units": [
            {
                "name": name,
                f"area_{ha}": number(found.area[row]),
                "searched": number(found.searched[row]),
                "individuals": dict(zip(found.classes, found.individuals[row].tolist(), strict=True)),
                f"per_{ha}": {
                    label: number(value)
                    for label, value in zip(found.classes, found.density[row], strict=True)
                },
                f"diameter_{m}": {
                    label: number(value)
                    for label, value in zip(found.classes, found.diameter[row], strict=True)
                },
            }
            for row, name in enumerate(found.names)
        ],
        "notes": notes,
    }
