"""`ecodetect evaluate`: detections against annotations, as numbers with their n."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ecodetect.wording import counted, figure, signed, signed_percent

from . import options
from .terminal import say, say_json

if TYPE_CHECKING:
    from ecodetect.evaluation.criterion import Criterion
    from ecodetect.evaluation.report import Evaluation
    from ecodetect.metrics import Interval, Rates

_MOST_UNITS = 20  # lines for files or plots; all are in --json


@click.command()
@click.argument("detections", metavar="DETECTIONS")
@click.argument("annotations", metavar="ANNOTATIONS")
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="RASTER",
    help="Name the raster (or folder) that both are about. Repeatable.",
)
@click.option("--within", metavar="LENGTH", help="Match positions up to this far apart (3m, 10px).")
@click.option(
    "--iou",
    type=float,
    metavar="IOU",
    help="Match shapes with at least this intersection over union.  [default: 0.5]",
)
@click.option("--inside", is_flag=True, help="Match points, or centroids, that lie inside a shape.")
@options.annotations_as("area", "complete")
@options.raster
@click.option(
    "-m",
    "--model",
    metavar="BUNDLE",
    help="Name the model that made DETECTIONS, if the file doesn't say where it was trained.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Set the random seed for the bootstrap intervals."
)
@click.option("-o", "--out", metavar="OUT", help="Write true, false and missed individuals to this layer.")
@click.option("--sheet", metavar="PNG", help="Draw a contact sheet of the worst errors (needs --image).")
@options.overwrite
@click.option("--json", "as_json", is_flag=True, help="Print all numbers as JSON.")
@options.timeout
@options.strict
def evaluate(
    detections: str,
    annotations: str,
    images: tuple[str, ...],
    model: str | None,
    seed: int,
    out: str | None,
    sheet: str | None,
    overwrite: bool,
    as_json: bool,
    within: str | None,
    iou: float | None,
    inside: bool,
    **given: Any,
) -> None:
    """Compare detections with annotations: what is right, what is false, what was missed.

    Both are layers, tables or folders with a file for each image. They are matched one to one: shapes by an
    IoU of 0.5, a point and a shape if the point lies inside, points by --within or by the annotations' own
    columns radius and accuracy.

    \b
    Examples:
      ecodetect evaluate trees.gpkg field.gpkg --within 3m --area plots.gpkg -o errors.gpkg
      ecodetect evaluate cells.csv truth/ --within 6px
    """
    from ecodetect.evaluation.evaluating import evaluate as run
    from ecodetect.formats import files as formats
    from ecodetect.pictures import files as picture_files
    from ecodetect.sizes import Length

    if out is not None:
        formats.writable(out)
    if sheet is not None:
        picture_files.replaceable(sheet, overwrite=overwrite)
    radius, edge = given.pop("radius"), given.pop("ignore_edge")
    if radius == "contour":
        raise click.UsageError("--radius contour takes outlines from a raster, to train; give a length.")
    done = run(
        detections,
        annotations,
        image=images,
        criterion=_criterion(within, iou, inside),
        radius=None if radius is None else Length.parse(radius, name="--radius"),
        edge=None if edge is None else Length.parse(edge, name="--ignore-edge"),
        area=given.pop("complete"),
        area_layer=given.pop("complete_layer"),
        gsd_m=given.pop("gsd"),
        model=model,
        seed=seed,
        **given,
    )
    written = []
    if out is not None:
        file = formats.write(out, done.errors(), overwrite=overwrite)
        options.tell(file.notes)
        written = [f"errors written to {file.path}"]
    if sheet is not None:
        done.draw_errors(sheet)
        written.append(f"worst errors drawn in {sheet}")
    options.tell(done.notes)
    for line in written:
        say(line, to_stderr=True)
    if as_json:
        say_json({**done.to_dict(), "notes": done.notes})
    else:
        say(*lines(done))


def _criterion(within: str | None, iou: float | None, inside: bool) -> Criterion | None:
    from ecodetect.evaluation.criterion import Criterion
    from ecodetect.sizes import Length

    if (within is not None) + (iou is not None) + inside > 1:
        raise click.UsageError("--within, --iou and --inside exclude one another; give one.")
    if within is not None:
        return Criterion("distance", Length.parse(within, name="--within"))
    if iou is not None:
        if not 0 < iou <= 1:
            raise click.UsageError(f"--iou must be above 0 and at most 1; got {iou:g}.")
        return Criterion("iou", iou)
    return Criterion("inside") if inside else None


def lines(done: Evaluation) -> Iterator[str]:
    """The report for people."""
    yield f"matched one to one by {done.criterion}"
    rows = [("all", done.rates)]
    if len(done.classes) > 1:
        rows += [(each.name, each.rates) for each in done.classes]
    if len(done.units) > 1:
        rows += [(each.name, each.rates) for each in done.units[:_MOST_UNITS]]
    rows += [(_size(each.low, each.high, each.unit), each.rates) for each in done.sizes]
    width = max(len(name) for name, _ in rows)
    titles = ("true", "false", "missed", "precision", "recall", "F1", "count off by")
    yield " ".join(["".ljust(width), *(title.rjust(9) for title in titles)]).rstrip()
    for name, rates in rows:
        yield _row(name.ljust(width), rates)
    if len(done.units) > _MOST_UNITS > 1:
        yield f"… and {counted(len(done.units) - _MOST_UNITS, f'more {done.unit}')} (all with --json)"
    known = {name: each for name, each in done.intervals.items() if math.isfinite(each.low)}
    if known:
        first = next(iter(known.values()))
        drawn = counted(first.n, done.drawn)
        shown = [f"{_TITLES[name]} {_interval(name, each)}" for name, each in known.items()]
        yield f"{first.level:.0%} intervals: {', '.join(shown)} (bootstrap over {drawn})"
    if done.ap is not None and done.ap.n_classes:
        mean = f", mean of {done.ap.n_classes} classes" if done.ap.n_classes > 1 else ""
        yield f"AP: {done.ap.coco:.3f} (101 points, as COCO), {done.ap.all_point:.3f} (whole curve){mean}"
    yield from _count_lines(done)
    if done.position.n:
        p = done.position
        axes = ("east", "north") if p.unit == "m" else ("right", "down")
        yield (
            f"position: RMSE {figure(p.rmse)} {p.unit} (n = {p.n:,});"
            f" mean shift {signed(p.shift_x)} {p.unit} {axes[0]}, {signed(p.shift_y)} {p.unit} {axes[1]}"
        )
    if done.presence is not None:
        t = done.presence
        unknown = f", {t.n_unknown} unknown" if t.n_unknown else ""
        yield (
            f"presence: TP {t.true_positives}, FN {t.false_negatives}, TN {t.true_negatives},"
            f" FP {t.false_positives} (n = {t.n} {done.unit}s{unknown})"
        )
    if done.duplicates or done.merged:
        yield (
            f"false, but on an individual that another detection already has (split): {done.duplicates:,};"
            f" missed, but under a detection that another individual has (merged): {done.merged:,}"
        )
    for (found, true), n in done.confusions.items():
        yield f"found as {found}, but {true}: {n:,}"
    apart = {"ignored annotations": done.ignored, "detections that fit only those": done.absorbed}
    apart["detections outside the area"] = done.outside
    if any(apart.values()):
        yield "not judged: " + ", ".join(f"{what} {n:,}" for what, n in apart.items() if n)


_TITLES = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "relative_count_error": "count error",
    "mae": "MAE",
}


def _count_lines(done: Evaluation) -> Iterator[str]:
    named = [("count", done.count)]
    if len(done.classes) > 1:
        named += [(f"count of {each.name}", each.count) for each in done.classes]
    if done.count.n > 1:
        named += [(f"count {_size(each.low, each.high, each.unit)}", each.count) for each in done.sizes]
    for name, c in named:
        share = "" if math.isnan(c.relative_error) else f" ({signed_percent(c.relative_error)})"
        text = f"{name}: {c.detected:,} detected, {c.true:,} there: {c.error:+,}{share}"
        if c.n > 1:
            text += (
                f"; per {done.unit} mean absolute error {figure(c.mae)}, bias {signed(c.bias)} (n = {c.n})"
            )
        yield text


def _interval(name: str, each: Interval) -> str:
    if name == "relative_count_error":
        return f"{signed_percent(each.low)} to {signed_percent(each.high)}"
    return f"{figure(each.low)} to {figure(each.high)}"


def _row(name: str, rates: Rates) -> str:
    numbers = (rates.true_positives, rates.false_positives, rates.false_negatives)
    shares = (rates.precision, rates.recall, rates.f1)
    cells = [f"{n:,}" for n in numbers] + ["–" if math.isnan(share) else f"{share:.3f}" for share in shares]
    off = rates.n_detections - rates.n_truths
    cells.append(f"{off:+,}" + ("" if not rates.n_truths or not off else f" ({off / rates.n_truths:+.1%})"))
    return " ".join([name, *(cell.rjust(9) for cell in cells)])


def _size(low: float, high: float, unit: str) -> str:
    if math.isinf(high):
        return f"from {low:g} {unit}"
    return f"below {high:g} {unit}" if not low else f"{low:g} to {high:g} {unit}"
