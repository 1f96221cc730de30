"""Estimates the individuals on a scan's ground from checked plots."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ecodetect.errors import UserError
from ecodetect.estimation import observers
from ecodetect.estimation.dividing import Divided, divided
from ecodetect.estimation.named_polygons import read_polygons
from ecodetect.estimation.plots_reading import PlotsFile, read_marks, read_plots
from ecodetect.estimation.recording import check_same
from ecodetect.estimation.remarks import remarks
from ecodetect.estimation.results import Change, Estimate
from ecodetect.estimation.scan_layer import facts_of
from ecodetect.estimation.survey import Survey
from ecodetect.estimation.tallying import Marked, Use, plot_of, usable
from ecodetect.evaluation.labels import listed
from ecodetect.formats import files as formats
from ecodetect.notes import Note
from ecodetect.wording import counted

Texts = NDArray[np.object_]


def estimate(
    plots: str | os.PathLike[str],
    *,
    checked: str | os.PathLike[str] | None = None,
    scan: str | os.PathLike[str] | None = None,
    not_done: Sequence[int] = (),
    by: str | os.PathLike[str] | None = None,
    second: str | os.PathLike[str] | None = None,
    visible: tuple[float, float] | None = None,
    since: str | os.PathLike[str] | None = None,
    level: float = 0.95,
) -> Estimate:
    """Estimate the individuals on the ground of a scan, with an interval.

    Parameters
    ----------
    plots : str or path-like
        The file of plots, checked in QGIS.
    checked : str or path-like, optional
        All individuals of the plots as another program wrote them, in any format that is read; every plot
        then counts as done, but those in `not_done`.
    scan : str or path-like, optional
        The layer that plots were drawn for; found beside `plots` where it is needed.
    not_done : sequence of int
        Numbers of plots that `checked` doesn't cover.
    by : str or path-like, optional
        Polygons that get an estimate each.
    second : str or path-like, optional
        What a second person marked in the first plots, without seeing the first one's marks.
    visible : (float, float), optional
        The share of the individuals that can be seen on the picture, and its standard error.
    since : str or path-like, optional
        The checked plots of an earlier survey of the same ground: the change is estimated too.
    level : float
        Of the intervals.

    Raises
    ------
    UserError
        In one sentence, where nothing is checked, or the files don't belong together.
    """
    if not 0.5 <= level < 1:
        raise UserError(f"The level must be at least 0.5 and below 1; got {level:g}.", parameter="level")
    file = read_plots(plots)
    marked, use, notes = _marked(file, checked, not_done)
    if not len(use.used):
        raise UserError(f"{file.path}: no plot is done yet: set the state of those that are checked.")
    seen = None if second is None else observers.observed(marked, _second(file, second), level)
    widened = [] if seen is None else [seen.seen]
    if visible is not None:
        widened.append(observers.share_of(visible, float(ndtri((1 + level) / 2))))
    survey = Survey(file, marked, use, level, _by(file, scan, by, marked), tuple(widened))
    record = file.record
    classes = tuple(survey.of_class(name, (name,)) for name in record.classes)
    numbers = np.array([each.number for each in record.plots])
    done = [*use.used.tolist(), *use.set_aside.tolist()]
    states = [str(state) for state in file.states]
    if checked is not None:
        states = ["done" if plot in done else "to do" for plot in range(len(states))]
    made = Estimate(
        classes=classes,
        together=classes[0] if len(classes) == 1 else survey.of_class("all", record.classes),
        record=record,
        level=level,
        size="one image" if record.side is None else record.plane.said(record.side),
        used=tuple(numbers[use.used].tolist()),
        set_aside=tuple(numbers[use.set_aside].tolist()),
        unusable=tuple(numbers[use.unusable].tolist()),
        next=tuple(numbers[use.next].tolist()),
        checkers=tuple(sorted(set(file.checkers[use.used].tolist()) - {""})),
        strata=survey.strata(),
        plots=survey.rows(states),
        groups=survey.groups(),
        observers=seen,
        visible=visible,
    )
    if since is not None:
        made = replace(made, changes=_changes(estimate(since, visible=visible, level=level), made))
    return replace(made, notes=(*notes, *remarks(made)))


def _marked(
    file: PlotsFile, checked: str | os.PathLike[str] | None, not_done: Sequence[int]
) -> tuple[Marked, Use, list[Note]]:
    """What was marked, which plots count, and notes on what doesn't."""
    record = file.record
    strange = next((number for number in not_done if not 1 <= number <= len(record.plots)), None)
    if strange is not None:
        raise UserError(f"{file.path} has no plot {strange}.", parameter="not_done")
    if checked is None:
        if not_done:
            raise UserError(
                "Which plots aren't done is said by their state; name them only with another program's file.",
                parameter="not_done",
            )
        states = file.states.tolist()
        individuals, about = file.individuals, str(file.path)
    else:
        states = ["to do" if each.number in not_done else "done" for each in record.plots]
        about = os.fspath(checked)
        individuals = read_marks(checked, record)
    use = usable(record, states)
    cells, inside = plot_of(record, file.outlines, individuals)
    if checked is not None and len(individuals) and (cells < 0).all():
        raise UserError(f"{about}: none of the {len(individuals):,} points lies in a plot.")
    notes = []
    off = np.isin(cells, use.used) & (inside < 0) & (individuals.ids == "")
    if off.any():
        text = f"{counted(int(off.sum()), 'individual')} in plots but off their searched ground don't count."
        notes.append(Note("individuals-off-ground", text, about=about, kind="doubt"))
    is_used = np.isin(inside, use.used)
    labels, said = _labels(individuals.labels, is_used, record.classes, about, is_own=checked is None)
    counts = file.counts if checked is None else {}
    marked = Marked(record, replace(individuals, labels=labels), inside, use.used, counts, checked is None)
    return marked, use, [*notes, *said]


def _labels(
    labels: Texts, is_used: NDArray[np.bool_], classes: tuple[str, ...], about: str, *, is_own: bool
) -> tuple[Texts, list[Note]]:
    """Labels of individuals as classes of the scan.

    Where there is one class, whoever marks needs no label; and another program's labels are that class if
    none of them is its name, as in `evaluate`. Raises UserError for others in plots that are no class.
    """
    found = labels.copy()
    if len(classes) == 1:
        found[found == ""] = classes[0]
        others = sorted(set(found.tolist()))
        if not is_own and others and classes[0] not in others:
            found[:] = classes[0]
            text = f"Classes aren't compared: the detections are {classes[0]}, the marks {listed(others)}."
            return found, [Note("classes-not-compared", text, about=about, kind="choice")]
    wrong = np.flatnonzero(~np.isin(found, list(classes)) & is_used)
    if len(wrong):
        label = found[wrong[0]]
        what = f"label '{label}'" if label else "the empty label"
        raise UserError(f"{about}: {what} of point {wrong[0] + 1} is none of {', '.join(classes)}.")
    return found, []


def _second(file: PlotsFile, path: str | os.PathLike[str]) -> Marked:
    """What a second person marked."""
    individuals = read_marks(path, file.record)
    _, inside = plot_of(file.record, file.outlines, individuals)
    return Marked(file.record, individuals, inside, np.empty(0, np.int64), {}, has_ids=False)


def _by(
    file: PlotsFile,
    scan: str | os.PathLike[str] | None,
    by: str | os.PathLike[str] | None,
    marked: Marked,
) -> Divided | None:
    """The scan's detections by polygon; checks the scan that is named, or lies beside the plots."""
    record = file.record
    path = Path(scan) if scan is not None else file.path.with_name(record.scan["file"])
    if not path.exists():
        if scan is None and by is None:
            return None
        raise UserError(
            f"{file.path} was drawn for {record.scan['file']}, and there is no {path}; put it there."
        )
    stated = formats.read_metadata(path)
    layer = None if "key" in stated else formats.read(path, grid=record.plane.grid)
    check_same(record, facts_of(path, stated, layer), about=str(file.path))
    if by is None:
        return None
    if marked.counts:
        raise UserError(f"{file.path} has counts, which don't say in which polygon individuals lie.")
    return divided(file, path, read_polygons(by, record.plane))


def _changes(before: Estimate, now: Estimate) -> tuple[Change, ...]:
    """The difference to an earlier survey, by class."""
    known = {each.name: each.individuals for each in before.every}
    found = []
    for each in now.every:
        old, new = known.get(each.name), each.individuals
        if old is not None and new is not None:
            found.append(Change(each.name, old, new, observers.difference(old, new)))
    if not found:
        raise UserError("The surveys have no class in common of which both have an interval.")
    return tuple(found)
