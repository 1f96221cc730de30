"""`ecodetect classify`: a species for each object of a layer, or for each picture of a folder."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ecodetect.wording import counted

from . import options
from .terminal import one_line, renew, say, say_json

if TYPE_CHECKING:
    from ecodetect.classification.accuracy import ClassificationReport

_MOST_COLUMNS = 15  # of a matrix that a person can read


@click.command()
@click.argument("detections", metavar="DETECTIONS|FOLDER")
@click.argument("image", metavar="[IMAGE]", required=False)
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    required=True,
    metavar="BUNDLE",
    help="Classify with this trained classifier. Repeatable (3 or 5): they answer together.",
)
@click.option(
    "-o",
    "--out",
    metavar="OUT",
    help="Write the classified layer, or the answers for a FOLDER (.csv), to this file.",
)
@click.option(
    "--vote",
    type=click.Choice(["mean", "majority"]),
    default="mean",
    show_default=True,
    help="Combine several models by the mean of their scores, or by majority vote.",
)
@click.option(
    "--views",
    type=click.Choice(["none", "flips", "flips+crops"]),
    default="none",
    show_default=True,
    help="Use test-time augmentation: average 8 rotated and mirrored views, or 40 with shifted crops.",
)
@click.option("--top", type=int, metavar="N", help="Give this many answers for each object.  [default: 3]")
@click.option("--layer", metavar="NAME", help="Read this layer, if DETECTIONS has several.")
@options.raster
@options.values
@options.device
@options.overwrite
@click.option(
    "--sheet", metavar="PNG", help="Draw the misclassified images of a FOLDER with truth and answer."
)
@click.option("--json", "as_json", is_flag=True, help="Print all results as JSON.")
@options.timeout
@options.strict
def classify(
    detections: str,
    image: str | None,
    models: tuple[str, ...],
    out: str | None,
    sheet: str | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Classify each object of a layer, in columns species, species_score, species_2, …

    A classifier is a model trained with -m sliding_window. It sees a window around the centre of each point,
    box or polygon. Give a FOLDER of images instead to classify each image; if its folders are classes, the
    answers are evaluated too.

    \b
    Examples:
      ecodetect classify trees.gpkg ortho.tif -m species.safetensors -o species.gpkg
      ecodetect classify eurosat/val -m land.safetensors -o answers.csv --sheet errors.png
    """
    if image is None:
        _of_pictures(detections, models, out, sheet, as_json, **how)
        return
    if out is None:
        raise click.UsageError("-o is missing: where to write the layer with species.")
    if sheet is not None:
        raise click.UsageError("--sheet shows misclassified pictures of folders by class; leave out IMAGE.")
    from ecodetect.classification.layers import classify as run

    gsd, values = how.pop("gsd"), options.unit_of(how.pop("values"))
    done = run(detections, image, models, out, gsd_m=gsd, values=values, **how)
    options.tell(done.notes, shown=not as_json)
    if as_json:
        say_json({**done.to_dict(), "notes": done.notes})
        return
    for name, count in done.counts.items():
        say(f"{name}: {count:,}")
    say(f"written to {done.path}")


def _of_pictures(
    folder: str, models: tuple[str, ...], out: str | None, sheet: str | None, as_json: bool, **how: Any
) -> None:
    from ecodetect.classification.folders import answer_pictures, writable
    from ecodetect.pictures import files as picture_files

    if how["layer"] is not None or how["allow_vrt"]:
        raise click.UsageError(
            "--layer and --allow-vrt are for DETECTIONS on an IMAGE, but IMAGE is missing."
        )
    if out is not None:
        writable(out, overwrite=how["overwrite"])
    if sheet is not None:
        picture_files.replaceable(sheet, overwrite=how["overwrite"])
    asked = {name: how[name] for name in ("vote", "views", "top", "bands", "nodata", "device")}
    values = options.unit_of(how["values"])
    with _Bar() as bar:
        done = answer_pictures(folder, models, gsd_m=how["gsd"], values=values, progress=bar.show, **asked)
    if sheet is not None:
        done.draw_errors(sheet)
    if out is not None:
        done.write(out, overwrite=how["overwrite"])
    options.tell(done.notes, shown=not as_json)
    if as_json:
        say_json({**done.to_dict(), "notes": done.notes})
        return
    if done.judged is not None:
        say(*lines(done.judged))
    elif out is None:
        say(*done.csv_lines(one_line))
    for path, what in ((out, "answers written to"), (sheet, "misclassified pictures drawn in")):
        if path is not None:
            say(f"{what} {path}", to_stderr=True)


def lines(done: ClassificationReport) -> Iterator[str]:
    """The figures for people."""
    interval = done.interval
    span = (
        ""
        if math.isnan(interval.low)
        else f" ({interval.level:.0%} {interval.low:.3f} to {interval.high:.3f})"
    )
    yield (
        f"{counted(done.n, 'picture')}: {done.accuracy:.3f} right{span},"
        f" {done.accuracy_top:.3f} within {counted(done.top, 'answer')}"
    )
    yield (
        f"mean of the classes' producer's accuracies {done.macro_recall:.3f};"
        f" scores are off by {done.calibration_error:.3f} (expected calibration error)"
    )
    classes = done.classes
    shown = [k for k, each in enumerate(classes) if each.n or each.answered]
    wide = max(len("class"), *(len(classes[k].name) for k in shown))
    yield ""
    yield " ".join(
        ["class".ljust(wide), *(title.rjust(10) for title in ("n", "answered", "producer's", "user's"))]
    )
    for k in shown:
        each = classes[k]
        cells = [f"{each.n:,}", f"{each.answered:,}", _share(each.producers), _share(each.users)]
        yield " ".join([each.name.ljust(wide), *(cell.rjust(10) for cell in cells)])
    yield ""
    if len(shown) > _MOST_COLUMNS:
        yield f"the confusion matrix of {len(shown)} classes is in --json"
        return
    width = max(4, *(len(f"{value:,}") + 1 for value in done.matrix.max(axis=0).tolist()))
    numbers = " ".join(str(place).rjust(width) for place in range(1, len(shown) + 1))
    yield f"{'truth'.ljust(wide)}  \\ {numbers}  answered"
    for place, k in enumerate(shown, start=1):
        cells = [f"{done.matrix[k, other]:,}".rjust(width) for other in shown]
        yield f"{classes[k].name.ljust(wide)} {place:>2} {' '.join(cells)}"


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


class _Bar:
    """How many pictures are done, on a terminal."""

    def __init__(self) -> None:
        self._wide = 0

    def show(self, done: int, total: int) -> None:
        if sys.stderr.isatty():
            text = f"{done:,} of {total:,} pictures"
            self._wide = renew(text, self._wide)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._wide:
            renew("", self._wide)
