"""`ecodetect plots`: plots drawn on the ground of a scan, as a file to check."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ecodetect.wording import counted, figure

from . import options
from .terminal import say, say_json

if TYPE_CHECKING:
    from ecodetect.estimation.plotting import DrawnPlots


@click.command()
@click.argument("scan", metavar="SCAN")
@click.option("-n", "number", type=int, metavar="N", help="Draw this many plots, at least 10.  [default: 40]")
@click.option(
    "--half-width",
    metavar="PERCENT",
    help="Draw as many as are expected to give an interval of ± this share of the number (10%), by the"
    " precision and recall on the model's card.",
)
@click.option(
    "-o",
    "--out",
    metavar="OUT",
    help="Write to this GeoPackage.  [default: SCAN.plots.gpkg]",
)
@click.option(
    "--size",
    metavar="LENGTH|image",
    help="Set the side of a cell (50m, 200px); image: each raster is one.  [default: by the detections]",
)
@click.option(
    "--strata-by",
    metavar="POLYGONS",
    help="Draw plots in each of these polygons (sites, flights), so that each gets its interval.",
)
@click.option(
    "--class", "classes", multiple=True, metavar="NAME", help="Count this class. Repeatable.  [default: all]"
)
@click.option(
    "--blind",
    is_flag=False,
    flag_value="all",
    metavar="[K]",
    help="Show no detections in the first K plots; without a number in none.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="RASTER",
    help="Name the raster (or folder) that was scanned, if it isn't beside SCAN. Repeatable.",
)
@click.option("--area", metavar="VECTOR", help="Say where was searched, if not in the whole raster.")
@options.allow_vrt
@click.option("--seed", type=int, default=0, show_default=True, help="Set the random seed of the draw.")
@click.option(
    "--within",
    metavar="LENGTH",
    help="Match what is marked in blind plots with detections up to this far away (3m).",
)
@click.option("--more", type=int, metavar="N", help="Add N plots of the same draw to SCAN.plots.gpkg.")
@options.overwrite
@click.option("--dry-run", is_flag=True, help="Print strata and plots, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the draw as JSON.")
@options.timeout
@options.strict
def plots(
    scan: str,
    number: int | None,
    half_width: str | None,
    out: str | None,
    size: str | None,
    strata_by: str | None,
    classes: tuple[str, ...],
    blind: str | None,
    images: tuple[str, ...],
    area: str | None,
    allow_vrt: bool,
    seed: int,
    within: str | None,
    more: int | None,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Draw plots on the ground of a scan, to be checked in QGIS.

    The ground is divided into cells; more plots are drawn where more was found, and some where nothing was.
    Check all individuals in each plot, in the order of their numbers, then run `ecodetect estimate`.

    \b
    Examples:
      ecodetect plots trees.gpkg -n 40
      ecodetect plots trees.gpkg --half-width 15% --size 50m --dry-run
      ecodetect plots trees.plots.gpkg --more 20
    """
    from ecodetect.estimation import plotting
    from ecodetect.sizes import Length

    if more is not None:
        given = (number, half_width, out, size, strata_by, classes, blind, area, within, overwrite, dry_run)
        if any(given):
            raise click.UsageError("--more goes on with a draw as it is; of the others it takes --image.")
        done = plotting.more_plots(scan, more, image=images, allow_vrt=allow_vrt)
    else:
        done = plotting.plots(
            scan,
            out,
            n=number,
            half_width=None if half_width is None else _share(half_width),
            size=size,
            strata_by=strata_by,
            classes=classes,
            blind=_blind(blind),
            image=images,
            area=area,
            seed=seed,
            within=None if within is None else Length.parse(within, name="--within"),
            overwrite=overwrite,
            dry_run=dry_run,
            allow_vrt=allow_vrt,
        )
    options.tell(done.notes)
    if as_json:
        say_json({**dataclasses.asdict(done), "notes": done.notes})
    else:
        say(*lines(done))


def _share(text: str) -> float:
    """`10%` as 0.1."""
    try:
        return float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        raise click.UsageError(f"--half-width takes a share such as 10%; got '{text}'.") from None


def _blind(text: str | None) -> int | None:
    """Plots to check blind; None: all."""
    if text is None:
        return 0
    if text == "all":
        return None
    if not text.isdecimal():
        raise click.UsageError(f"--blind takes a number of plots; got '{text}'.")
    return int(text)


def lines(done: DrawnPlots) -> Iterator[str]:
    """The draw for people."""
    ground = "" if done.hectares is None else f", {figure(done.hectares, 4)} ha"
    cells = f"{done.cells:,} cells of {done.size}{ground}"
    found = ", ".join(f"{count:,} {name}" for name, count in done.detections.items())
    yield f"{counted(done.plots, 'plot')} of {cells}; detections: {found}"
    width = max(len("stratum"), *(len(each.name) for each in done.strata))
    yield f"{'stratum'.ljust(width)}     cells detections     plots"
    for each in done.strata:
        yield f"{each.name.ljust(width)} {each.cells:>9,} {each.detections:>10,} {each.plots:>9,}"
    if done.expected:
        widths = ", ".join(f"±{half:.0%} with {n}" for n, half in done.expected.items())
        yield f"about, by the precision and recall on the model's card: {widths} plots"
    if done.path is not None:
        yield f"written to {done.path}" + ("" if done.added == done.plots else f" ({done.added} added)")
