"""An estimate in words: the sentence for the methods section, a report in Markdown, a table of the plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from ecodetect.estimation.design import Interval
from ecodetect.estimation.results import ClassEstimate, Estimate
from ecodetect.version import __version__
from ecodetect.wording import counted, figure


def number(value: float) -> str:
    """A number of individuals: `8,122`, `0.3`."""
    return f"{value:,.0f}" if value >= 10 else figure(value, 2)


def spanned(each: Interval) -> str:
    """`8,122 (6,890 to 9,700)`."""
    return f"{number(each.value)} ({number(each.low)} to {number(each.high)})"


def share(each: Interval) -> str:
    """`0.84 (0.79 to 0.88)`."""
    return f"{each.value:.2f} ({each.low:.2f} to {each.high:.2f})"


def who_checked(made: Estimate) -> str:
    """`one person`, `two persons`."""
    people = max(len(made.checkers), 1)
    return "one person" if people == 1 else f"{people} persons"


def sentences(made: Estimate) -> str:
    """What to write of how the number came about."""
    record = made.record
    ground = "" if record.hectares is None else f" ({figure(record.hectares, 4)} ha)"
    blind = {row.is_blind for row in made.plots if row.is_used}
    seen = {
        frozenset([True]): "who saw no detections",
        frozenset([False]): "who saw the detections",
    }.get(frozenset(blind), "who saw the detections in some of them")
    cells = "" if record.side is None else f" of {made.size}"
    strata = f"{counted(len(record.strata), 'stratum', 'strata')}"
    by = "" if record.strata_by is None else ", within polygons"
    rounds = "" if len(record.rounds) < 2 else f" in {len(record.rounds)} rounds ({_rounds(made)})"
    unused = [each.name for each in made.every if each.abundance and not each.abundance.uses_detections]
    without = f" The detections of {', '.join(unused)} were not used." if unused else ""
    model = f" Model: {record.scan['model']} (ecodetect {__version__})." if record.scan["model"] else ""
    adjusted = ""
    if made.observers is not None:
        adjusted += (
            " Numbers were divided by the share of what a second person marked in"
            f" {made.observers.plots} plots that the first one marked too: {share(made.observers.seen)}."
        )
    if made.visible is not None:
        value, se = made.visible
        adjusted += f" Numbers were divided by the share that can be seen, {value:g} (standard error {se:g})."
    return (
        "Abundance was estimated by a stratified difference estimator. The searched area"
        f"{ground} was divided into {int(record.cells.sum()):,} cells{cells}; cells were stratified by the"
        f" number of detections ({strata}{by}), and {counted(len(record.plots), 'plot')} were drawn at random"
        f" with spatial balance (seed {record.seed}){rounds}; {len(made.used)} were checked on the image by"
        f" {who_checked(made)} {seen}. N = X + Σ N_h·mean(y − x); {made.level * 100:g} % limits combine a"
        " score interval for cells without detections and a t interval with Satterthwaite's degrees of"
        f" freedom for the others (MOVER).{without}{adjusted}{model} Threshold, fingerprints, strata and"
        " per-plot data: supplement (table)."
    )


def _rounds(made: Estimate) -> str:
    return ", ".join(str(each) for each in made.record.rounds)


def report(made: Estimate) -> str:
    """A report in Markdown."""
    return "\n".join([*_report(made), ""])


def _report(made: Estimate) -> Iterator[str]:
    record = made.record
    yield "# Abundance"
    yield ""
    titles = (
        f"individuals ({made.level * 100:g} %) | per hectare | detections | precision | recall | occupied"
    )
    yield f"| | {titles} |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for each in made.every:
        yield f"| {_cell(each.name)} | {' | '.join(_figures(each))} |"
    for each in made.every:
        for polygon in each.polygons:
            there = "too few plots" if polygon.interval is None else spanned(polygon.interval)
            name = f"{_cell(each.name)} in {_cell(polygon.name)}"
            yield f"| {name} | {there} | | {polygon.detections:,} | | | |"
    yield ""
    for change in made.changes:
        yield f"Change of {change.name}: {spanned(change.difference)}, from {spanned(change.before)}."
        yield ""
    for note in made.notes:
        yield f"- {note}"
    if made.notes:
        yield ""
    yield "## Methods"
    yield ""
    yield sentences(made)
    yield ""
    yield "## Strata"
    yield ""
    yield "| stratum | N_h | n_h | X_h | mean x | mean y | s_h |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for row in made.strata:
        means = (row.mean_detections, row.mean_individuals, row.spread)
        shown = " | ".join("–" if value != value else figure(value) for value in means)
        yield f"| {_cell(row.name)} | {row.cells} | {row.plots} | {row.detections} | {shown} |"
    yield ""
    settings = ", ".join(f"{name} {value}" for name, value in record.settings.items())
    yield f"Scan: {record.scan['file']}, key {record.scan['key']}; {settings}."
    yield ""
    for name, fingerprint in record.fingerprints.items():
        yield f"- {_cell(name)}: {fingerprint}"


def _figures(each: ClassEstimate) -> list[str]:
    """The cells of a class in the table of the report."""
    if each.individuals is None:
        return [f"at least {each.counted:,}", "", f"{each.detections:,}", "", "", ""]
    density = "" if each.per_hectare is None else density_of(each.per_hectare)
    precision = "" if each.precision is None else share(each.precision.interval)
    recall = "" if each.recall is None else share(each.recall)
    occupied = "" if each.occupied is None else share(each.occupied)
    return [spanned(each.individuals), density, f"{each.detections:,}", precision, recall, occupied]


def density_of(each: Interval) -> str:
    """`16.9 (14.4 to 20.2)`."""
    return f"{figure(each.value)} ({figure(each.low)} to {figure(each.high)})"


def _cell(text: str) -> str:
    """A text within a table of Markdown."""
    return text.replace("|", "\\|").replace("\n", " ")


def table(made: Estimate) -> str:
    """A CSV with a row for each plot: what other estimators read."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = made.record.classes
    columns = [f"{what}_{name}" for name in names for what in ("y", "x", "missed", "false")]
    writer.writerow(["plot", "stratum", "cell", "state", "used", "blind", "checker", *columns])
    for row in made.plots:
        values = [value for name in names for value in row.counts.get(name, ("", "", "", ""))]
        shown = [f"{value:g}" if isinstance(value, float) else value for value in values]
        flags = [str(int(row.is_used)), str(int(row.is_blind))]
        writer.writerow([row.number, row.stratum, row.cell, row.state, *flags, row.checker, *shown])
    return out.getvalue()
