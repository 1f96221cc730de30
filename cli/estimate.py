"""`ecodetect estimate`: the number of individuals with its interval, from checked plots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ecodetect.wording import counted

from . import options
from .terminal import say, say_json

if TYPE_CHECKING:
    from ecodetect.estimation.results import ClassEstimate, Estimate


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="PLOTS | SCAN PLOTS CHECKED")
@click.option("--by", metavar="POLYGONS", help="Estimate each of these polygons too.")
@click.option(
    "--second",
    metavar="FILE",
    help="Read what a second person marked in the first plots, and divide by the share the first one saw.",
)
@click.option(
    "--visible",
    metavar="SHARE,SE",
    help="Divide by the share that can be seen on the picture, with its standard error (0.8,0.05).",
)
@click.option("--since", metavar="PLOTS", help="Estimate the change since this survey, too.")
@click.option(
    "--not-done", metavar="NUMBERS", help="Leave out these plots, which CHECKED doesn't cover (7,12)."
)
@click.option(
    "--level",
    type=float,
    default=0.95,
    show_default=True,
    metavar="SHARE",
    help="Set the level of intervals.",
)
@click.option("-o", "--out", metavar="MD", help="Write a report, with a methods section, as Markdown.")
@click.option("--table", metavar="CSV", help="Write a table of the plots.")
@options.overwrite
@click.option("--json", "as_json", is_flag=True, help="Print all numbers as JSON.")
@options.timeout
@options.strict
def estimate(
    files: tuple[str, ...],
    by: str | None,
    second: str | None,
    visible: str | None,
    since: str | None,
    not_done: str | None,
    level: float,
    out: str | None,
    table: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Estimate how many individuals there are, with an interval, from checked plots.

    PLOTS is the file that `ecodetect plots` wrote, checked in QGIS. For plots that were checked in another
    program, name the scan, the plots and the file with all their individuals.

    \b
    Examples:
      ecodetect estimate trees.plots.gpkg
      ecodetect estimate trees.plots.gpkg --by districts.gpkg -o report.md --table plots.csv
      ecodetect estimate trees.gpkg trees.plots.gpkg marked.csv --not-done 7,12
    """
    from ecodetect.estimation import methods_text
    from ecodetect.estimation.estimating import estimate as run

    if len(files) not in (1, 3):
        raise click.UsageError("Give PLOTS, or SCAN, PLOTS and CHECKED.")
    scan, plots, checked = (None, files[0], None) if len(files) == 1 else files
    for path in (out, table):
        if path is not None:
            _check_free(Path(path), overwrite=overwrite)
    done = run(
        plots,
        checked=checked,
        scan=scan,
        not_done=_numbers(not_done),
        by=by,
        second=second,
        visible=_visible(visible),
        since=since,
        level=level,
    )
    for path, text in ((out, methods_text.report), (table, methods_text.table)):
        if path is not None:
            _write(Path(path), text(done), overwrite=overwrite)
    options.tell(done.notes, shown=as_json)
    if as_json:
        say_json({**done.to_dict(), "notes": done.notes})
    else:
        say(*lines(done))
        for note in done.notes:
            say(f"note: {note}")


def _check_free(path: Path, *, overwrite: bool) -> None:
    from ecodetect.errors import UserError, already_there

    if path.exists() and (not overwrite or not path.is_file()):
        raise already_there(path)
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path} can't be written: its folder doesn't exist; make it first.")


def _write(path: Path, text: str, *, overwrite: bool) -> None:
    from ecodetect.whole_file import write_whole

    write_whole(path, text.encode(), replace=overwrite)


def _numbers(text: str | None) -> tuple[int, ...]:
    parts = [] if text is None else [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise click.UsageError(f"--not-done takes numbers of plots such as 7,12; got '{text}'.")
    return tuple(int(part) for part in parts)


def _visible(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        value, se = (float(part) for part in text.split(","))
    except ValueError:
        raise click.UsageError(f"--visible takes SHARE,SE such as 0.8,0.05; got '{text}'.") from None
    return value, se


def lines(done: Estimate) -> Iterator[str]:
    """The estimate for people."""
    for each in done.every:
        yield from _of_class(done, each)
    for change in done.changes:
        from ecodetect.estimation.methods_text import spanned

        yield f"change of {change.name}: {spanned(change.difference)}, from {spanned(change.before)}"
    for group in done.groups:
        d = group.difference
        yield (
            f"{group.name}: {counted(group.plots, 'plot')}, mean of y - x {d.value:+.2f}"
            f" ({d.low:+.2f} to {d.high:+.2f})"
        )
    if done.observers is not None:
        from ecodetect.estimation.methods_text import share

        seen = done.observers
        yield (
            f"a second person: the first one sees {share(seen.seen)} of what the second one does"
            f" (n = {seen.marked:,} in {counted(seen.plots, 'plot')})"
        )
    elif len(done.checkers) < 2:
        yield "checked by one person"
    if done.next:
        yield f"next: plots {', '.join(map(str, done.next))}"
    elif done.together.forecast:
        last = len(done.record.plots)
        yield f"next: plots {last + 1} to {last + 20} (ecodetect plots PLOTS --more 20)"


def _of_class(done: Estimate, each: ClassEstimate) -> Iterator[str]:
    from ecodetect.estimation.methods_text import density_of, number, share, spanned

    plots = f"{counted(len(done.used), 'plot')} of {done.size}"
    if each.individuals is None:
        yield f"{each.name}: {each.detections:,} detections; in {plots} {each.counted:,} for {each.found:,}"
        return
    n = each.individuals
    density = "" if each.per_hectare is None else f", {_split(density_of(each.per_hectare))}"
    yield (
        f"{each.name}: {number(n.value)} individuals ({number(n.low)} to {number(n.high)},"
        f" {done.level * 100:g} %){density}"
    )
    if each.if_false is not None:
        yield f"  {spanned(each.if_false)} if all {each.unsure} that are unsure are false"
    missed = each.missed
    if each.false is not None and missed is not None:
        part = each.false / each.detections if each.detections else 0.0
        yield (
            f"  {each.detections:,} detections, {number(each.false)} of them false ({part:.0%}),"
            f" {number(missed.value)} missed"
        )
    else:
        yield f"  {each.detections:,} detections"
    rates = []
    if each.precision is not None:
        rates.append(f"precision {share(each.precision.interval)}")
    if each.recall is not None:
        rates.append(f"recall {share(each.recall)}")
    yield f"  {', '.join([*rates, f'n = {each.counted:,} {each.name} in {plots}'])}"
    if each.occupied is not None:
        o = each.occupied
        yield f"  occupied: {o.value:.0%} of the cells ({o.low:.0%} to {o.high:.0%})"
    if each.polygons:
        yield "  by polygon: " + ", ".join(
            f"{polygon.name} "
            + (
                spanned(polygon.interval)
                if polygon.interval is not None
                else f"{polygon.detections:,} detections, {polygon.counted:,} counted, too few plots"
                f" ({polygon.plots}) for an interval"
            )
            for polygon in each.polygons
        )
    if each.forecast:
        widths = ", ".join(f"+{more} ±{half:.0%}" for more, half in each.forecast.items())
        yield f"  about, with more plots: {widths}"


def _split(text: str) -> str:
    """A density with its unit before the limits: `16.9 per hectare (14.4 to 20.2)`."""
    value, _, limits = text.partition(" ")
    return f"{value} per hectare {limits}"
