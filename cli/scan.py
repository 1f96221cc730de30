"""`ecodetect scan`: find the individuals in rasters and write them as a layer."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ecodetect.wording import counted, duration, figure

from . import options
from .terminal import renew, say, say_json, sentence

if TYPE_CHECKING:
    from ecodetect.errors import UserError
    from ecodetect.scanning.results import Summary


_MICROGRAPH_HA = 1e-8  # a square centimetre: smaller ones are told in square millimetres


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    metavar="MODEL",
    help="Search with this model or detector: a file, or a name from `ecodetect models`. Repeatable for"
    " models of boxes, which then answer together.  [default: the one that fits]",
)
@click.option(
    "-o",
    "--out",
    metavar="OUT",
    help="Write to this file (its suffix is the format) or folder.  [default: IMAGE.detections.geojson]",
)
@options.raster
@options.values
@options.aoi
@click.option(
    "--score",
    multiple=True,
    metavar="S",
    help="Keep detections with at least this score: 0.5, or class=0.5 (repeatable)."
    "  [default: the model's thresholds]",
)
@click.option(
    "--diameter",
    metavar="LENGTH",
    help="State the typical object diameter in this raster (25px, 8m). For models without a GSD: the raster"
    " is resampled to match.",
)
@options.settings
@options.device
@click.option(
    "--flips",
    is_flag=True,
    help="Use test-time augmentation: also run each tile flipped (boxes only, four times slower).",
)
@click.option(
    "--classify",
    multiple=True,
    metavar="BUNDLE",
    help="Classify each detection with this trained classifier. Repeatable.",
)
@click.option("--picture", metavar="PNG", help="Draw the detections over the raster.")
@click.option(
    "--sheet",
    metavar="PNG",
    help="Draw a contact sheet of single detections, from the highest to the lowest score.",
)
@click.option(
    "--score-map", metavar="TIF", help="Write the map of scores that detections are read from, as a GeoTIFF."
)
@click.option(
    "--verify",
    is_flag=True,
    help="Search a few percent of the ground again on shifted tiles and report the share found again.",
)
@click.option(
    "--batch", type=int, default=1, show_default=True, metavar="N", help="Set the batch size, in tiles."
)
@click.option(
    "--tile", type=int, metavar="PX", help="Set the side of a tile in pixels.  [default: automatic]"
)
@click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Work on at most this many tiles at once; a network on the CPU takes one.  [default: automatic]",
)
@options.max_memory
@options.alignment
@click.option("--restart", is_flag=True, help="Start over instead of resuming an interrupted scan.")
@options.overwrite
@click.option("--dry-run", is_flag=True, help="Print what would be done, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print neither progress nor summary.")
@options.timeout
@options.strict
def scan(
    images: tuple[str, ...],
    models: tuple[str, ...],
    out: str | None,
    score: tuple[str, ...],
    diameter: str | None,
    settings: tuple[str, ...],
    device: str,
    flips: bool,
    classify: tuple[str, ...],
    picture: str | None,
    sheet: str | None,
    score_map: str | None,
    verify: bool,
    batch: int,
    tile: int | None,
    workers: int | None,
    max_memory: str | None,
    alignment: str,
    restart: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **raster: Any,
) -> int:
    """Find the individuals in rasters and write them as a layer.

    IMAGE is a file, a folder, a pattern, or a URL. To resume an interrupted scan, run the same command again.

    \b
    Examples:
      ecodetect scan ortho.tif -m shrubs.safetensors -o shrubs.gpkg
      ecodetect scan ortho.tif -m threshold --picture map.png
      ecodetect scan flights/ -m threshold -o shrubs/ --set min_area=2m2
      ecodetect scan plate.png -m blobs -o cells.csv
      ecodetect scan ortho.tif -m trees --classify species.safetensors -o species.gpkg
    """
    from ecodetect.scanning.files import scan_files
    from ecodetect.scanning.layout import read_size
    from ecodetect.scanning.planning import plan_files
    from ecodetect.scanning.settings import Output, Settings
    from ecodetect.sizes import Length

    model, *others = models or (_only_fitting(images, raster, quiet=quiet),)
    asked = Settings(
        model=model,
        others=tuple(others),
        flips=flips,
        options=options.pairs(settings),
        score=_scores(score),
        device=device,
        diameter=None if diameter is None else Length.parse(diameter, name="--diameter"),
        tile_px=tile,
        batch=batch,
        workers=workers,
        max_memory=None if max_memory is None else read_size(max_memory),
        aoi=raster["aoi"],
        aoi_layer=raster["aoi_layer"],
        values=options.unit_of(raster["values"]),
        **options.opened_as(raster),
    )
    output = Output(
        overwrite,
        restart,
        picture,
        sheet,
        verify,
        score_map=score_map,
        classify=classify,
        alignment=options.alignment_of(alignment),
    )
    if dry_run:
        lines, notes = plan_files(images, asked, out, output)
        options.tell(notes)
        say(*lines)
        return 0
    with ProgressBar(hidden=quiet or as_json) as bar:
        summaries, failures = scan_files(images, asked, out, output, bar.show)
    if as_json:
        say_json([_as_json(summary) for summary in summaries])
    return report(summaries, failures, quiet=quiet or as_json)


def _only_fitting(images: tuple[str, ...], raster: dict[str, Any], *, quiet: bool) -> str:
    """The model meant where none is named."""
    from ecodetect.raster.options import RasterOptions
    from ecodetect.scanning.planning import fitting_model

    model, note = fitting_model(images, RasterOptions(**options.opened_as(raster)))
    options.tell([note], shown=not quiet)
    return model


def report(summaries: list[Summary], failures: list[tuple[str, UserError]], *, quiet: bool) -> int:
    """Print what was found and what failed; the exit code."""
    for summary in summaries:
        options.tell(summary.notes, shown=not quiet)
        if not quiet:
            say(*_lines(summary))
    for _, error in failures:
        say(f"error: {sentence(error)}", to_stderr=True)
    tried = len(failures) + sum(len(summary.sources) for summary in summaries)
    if failures and tried > 1:
        say(f"{len(failures)} of {tried} rasters couldn't be scanned.", to_stderr=True)
    return 2 if failures else 0


def _scores(texts: tuple[str, ...]) -> float | Mapping[str, float] | None:
    """`0.5`, or `class=0.5` several times."""
    if not texts:
        return None
    by_class: dict[str, float] = {}
    for text in texts:
        name, separator, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            raise click.UsageError(f"--score takes a number, or CLASS=NUMBER; got '{text}'.") from None
        if not separator:
            if len(texts) > 1:
                raise click.UsageError("--score takes one number, or CLASS=NUMBER several times; not both.")
            return number
        by_class[name] = number
    return by_class


def _lines(summary: Summary) -> list[str]:
    """The summary for people."""
    if summary.in_work:
        return [f"{summary.path}: skipped."]
    if summary.already_done:
        there = ", ".join(f"{count:,} {label}" for label, count in summary.counts.items())
        return [f"{summary.path}: already done ({there or 'nothing found'}).", *_map_line(summary)]
    lines = []
    for label, count in summary.counts.items():
        density = ""
        if summary.area_ha:
            hectares, unit = (summary.area_ha, "hectare")
            if hectares < _MICROGRAPH_HA:
                hectares, unit = hectares * 1e10, "mm²"
            density = f", {figure(count / hectares)} per {unit}"
        lines.append(f"{label}: {count:,}{density}")
    if summary.species is not None:
        each = (f"{name} {count:,}" for name, count in summary.species.items())
        lines.append(f"species: {', '.join(each) or 'none'}")
    if summary.expected is not None:
        several = len(summary.expected) > 1
        each = (f"{number:,.0f}{f' {name}' if several else ''}" for name, number in summary.expected.items())
        lines.append(
            f"sum of the density, which also counts individuals that can't be told apart: {', '.join(each)}"
        )
    ground = f"{figure(summary.megapixels)} Mpx"
    if summary.area_ha is not None:
        if summary.area_ha < _MICROGRAPH_HA:
            ground += f" = {summary.area_ha * 1e10:,.4g} mm²"
        elif summary.area_ha < 1e4:
            ground += f" = {summary.area_ha:,.4g} ha"
        else:
            ground += f" = {summary.area_ha / 100:,.4g} km²"
    rate = f" ({figure(summary.megapixels / summary.seconds)} Mpx/s)" if summary.seconds > 0 else ""
    again = ", resumed" if summary.resumed else ""
    took = f"{summary.seconds:.1f} s" if summary.seconds < 90 else duration(summary.seconds)
    lines.append(f"searched {ground} in {took}{rate}{again}")
    if summary.runtime is not None:
        lines.append(f"network run by {summary.runtime}")
    if summary.too_large:
        lines.append(f"left out {summary.too_large:,} wider than the largest object of {summary.model}")
    if summary.elsewhere:
        lines.append(f"left out {summary.elsewhere:,} seen in several rasters")
    if summary.dropped:
        lines.append(f"left out {summary.dropped:,} that the file can't hold")
    if summary.verified is not None:
        share, n = summary.verified
        lines.append(f"verified: {share:.1%} of {counted(n, 'detection')} found again on shifted tiles")
    return [*lines, f"written to {summary.path}", *_map_line(summary)]


def _map_line(summary: Summary) -> list[str]:
    return [] if summary.score_map is None else [f"map of scores written to {summary.score_map}"]


def _as_json(summary: Summary) -> dict[str, Any]:
    share = None if summary.verified is None else {"share": summary.verified[0], "n": summary.verified[1]}
    return {
        "path": str(summary.path), "sources": list(summary.sources), "model": summary.model,
        "already_done": summary.already_done, "in_work": summary.in_work,
        "counts": dict(summary.counts), "area_ha": summary.area_ha,
        "megapixels": summary.megapixels,
        "rasters": [dataclasses.asdict(each) for each in summary.rasters],
        "too_large": summary.too_large, "elsewhere": summary.elsewhere, "dropped": summary.dropped,
        "expected": summary.expected, "species": summary.species, "seconds": round(summary.seconds, 3),
        "resumed": summary.resumed, "runtime": summary.runtime, "verified": share, "notes": summary.notes,
        "score_map": None if summary.score_map is None else str(summary.score_map),
    }  # fmt: skip


class ProgressBar:
    """Progress on stderr: a line that renews itself on a terminal, a line every half minute elsewhere."""

    def __init__(self, *, hidden: bool) -> None:
        self._hidden, self._live = hidden, sys.stderr.isatty()
        self._started: dict[str, float] = {}
        self._said = time.monotonic()
        self._wide = 0

    def show(self, name: str, done: float, total: float) -> None:
        if self._hidden:
            return
        now = time.monotonic()
        start = self._started.setdefault(name, now)
        if not total or (now - self._said < (0.2 if self._live else 30) and done < total):
            return
        if not self._live and now - start < 30:
            return
        self._said = now
        rate = done / (now - start) if now > start else 0.0
        pace = f", {figure(rate)} Mpx/s" if rate else ""
        left = f", {duration((total - done) / rate)} left" if rate and done < total else ""
        text = f"{name}: {min(done / total, 1):.0%} of {figure(total)} Mpx{pace}{left}"
        if self._live:
            self._wide = renew(text, self._wide)
        else:
            say(text, to_stderr=True)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._live and self._wide:
            renew("", self._wide)
