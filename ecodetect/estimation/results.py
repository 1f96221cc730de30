"""What an estimate says: numbers with intervals, by class, polygon and stratum, as frozen results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ecodetect.estimation.abundance import Abundance
from ecodetect.estimation.design import Interval
from ecodetect.estimation.record import Record
from ecodetect.estimation.shares import Ratio
from ecodetect.notes import Note
from ecodetect.version import __version__


@dataclass(frozen=True)
class PolygonEstimate:
    """The individuals of a polygon.

    interval : None where fewer than five plots touch it.
    detections : on it.  counted : in its plots, of which there are `plots`.
    """

    name: str
    interval: Interval | None
    detections: int
    counted: int
    plots: int


@dataclass(frozen=True)
class ClassEstimate:
    """The individuals of a class, or of all together.

    detections : on all the ground.
    counted, found, unsure : individuals and detections in the plots that are used, and individuals of which
        the checker isn't sure.
    individuals : their number, as widened for what checkers miss or nobody can see; None where there are too
        few plots, as all that follows.
    abundance : the number that the plots give, with all that went into it.
    per_hectare : None where the size of the ground is unknown.
    missed : individuals that aren't detected.
    precision, recall : of the scan on this ground; None where nothing was matched.
    occupied : share of the cells with an individual.
    if_false : the number if all were false of which the checker isn't sure; None where there are none.
    forecast : plots more -> half-width to expect, as a share of the individuals.
    """

    name: str
    detections: int
    counted: int
    found: int
    unsure: int
    individuals: Interval | None = None
    abundance: Abundance | None = None
    per_hectare: Interval | None = None
    missed: Interval | None = None
    precision: Ratio | None = None
    recall: Interval | None = None
    occupied: Interval | None = None
    if_false: Interval | None = None
    polygons: tuple[PolygonEstimate, ...] = ()
    forecast: Mapping[int, float] = field(default_factory=dict)

    @property
    def false(self) -> float | None:
        """Detections that are no individuals; None where nothing was matched."""
        return None if self.precision is None else self.detections * (1 - self.precision.interval.value)


@dataclass(frozen=True)
class StratumResult:
    """A stratum: cells, plots that are used, detections on it; means of a plot, of all classes together.

    spread : standard deviation of what is wrong with the detections of a plot.
    share : of the variance of the number.
    """

    name: str
    cells: int
    plots: int
    detections: int
    mean_detections: float
    mean_individuals: float
    spread: float
    share: float


@dataclass(frozen=True)
class PlotRow:
    """A plot in the table of plots: by class the individuals, detections, missed and false ones."""

    number: int
    stratum: str
    cell: str
    state: str
    checker: str
    is_used: bool
    is_blind: bool
    counts: Mapping[str, tuple[float, float, float, float]]


@dataclass(frozen=True)
class Group:
    """Plots that were checked blind, or in review: the mean of y - x."""

    name: str
    plots: int
    difference: Interval


@dataclass(frozen=True)
class Observers:
    """What a second person saw in the same plots: the share that the first one sees of it."""

    seen: Interval
    plots: int
    marked: int


@dataclass(frozen=True)
class Change:
    """The difference to an earlier survey of a class."""

    name: str
    before: Interval
    now: Interval
    difference: Interval


@dataclass(frozen=True)
class Estimate:
    """An estimate with its intervals.

    classes : each class, in the order of the model's card.
    together : all classes; the class itself where there is one.
    record : the draw.
    used, set_aside, unusable : numbers of plots.  next : those to check next.
    checkers : names of who checked, and how many there are without a name.
    size : of a cell, for people.
    """

    classes: tuple[ClassEstimate, ...]
    together: ClassEstimate
    record: Record
    level: float
    size: str
    used: tuple[int, ...]
    set_aside: tuple[int, ...]
    unusable: tuple[int, ...]
    next: tuple[int, ...]
    checkers: tuple[str, ...]
    strata: tuple[StratumResult, ...]
    plots: tuple[PlotRow, ...]
    groups: tuple[Group, ...]
    observers: Observers | None
    visible: tuple[float, float] | None
    changes: tuple[Change, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def every(self) -> tuple[ClassEstimate, ...]:
        """Each class, and all together where there are several."""
        return self.classes if len(self.classes) == 1 else (*self.classes, self.together)

    def to_dict(self) -> dict[str, Any]:
        """All figures, JSON-able."""
        return {
            "ecodetect": __version__,
            "level": self.level,
            "scan": dict(self.record.scan),
            "cells": int(self.record.cells.sum()),
            "size": self.size,
            "hectares": self.record.hectares,
            "seed": self.record.seed,
            "rounds": list(self.record.rounds),
            "plots": {
                "drawn": len(self.record.plots),
                "used": list(self.used),
                "set_aside": list(self.set_aside),
                "unusable": list(self.unusable),
                "next": list(self.next),
            },
            "classes": [_of_class(each) for each in self.every],
            "strata": [_plain(each) for each in self.strata],
            "groups": [_plain(each) for each in self.groups],
            "observers": _plain(self.observers),
            "visible": None if self.visible is None else list(self.visible),
            "changes": [_plain(each) for each in self.changes],
            "notes": [note.to_json() for note in self.notes],
        }


def _of_class(each: ClassEstimate) -> dict[str, Any]:
    found = {name: _plain(getattr(each, name)) for name in _OF_CLASS}
    found["precision"] = None if each.precision is None else _plain(each.precision.interval)
    found["polygons"] = [_plain(polygon) for polygon in each.polygons]
    if each.abundance is not None:
        a = each.abundance
        found |= {
            "se": _plain(a.se),
            "uses_detections": a.uses_detections,
            "dispersion": _plain(a.dispersion),
            "distances": _plain(a.distances),
        }
    return found


_OF_CLASS = (
    "name", "individuals", "per_hectare", "detections", "false", "missed", "recall", "occupied", "counted",
    "found", "unsure", "if_false", "forecast",
)  # fmt: skip


def _plain(value: Any) -> Any:
    """A result, JSON-able."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.10g}") if math.isfinite(value) else None
    return value
