"""The result of an evaluation: figures with their n, a dictionary for programs, a layer of errors."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely

from ecodetect.evaluation.judging import JudgedImage
from ecodetect.evaluation.pooling import ClassResult, SizeResult, UnitRates
from ecodetect.evaluation.worst import draw_worst
from ecodetect.layer import Stream, geometry_type
from ecodetect.matching import centres
from ecodetect.metrics import CountError, Interval, MeanAveragePrecision, PositionError, Presence, Rates
from ecodetect.notes import Note
from ecodetect.version import __version__


@dataclass(frozen=True, eq=False, slots=True)
class Evaluation:
    """The result of an evaluation.

    criterion : of the matching, with its limit.
    rates : pooled over everything judged.
    classes, units, sizes : the same per class, per file or plot, per size.
    unit : what `units` are: "file" or "plot".
    ap : mean over classes; None where the detections have no scores.
    count : over units.  position : of matched pairs.
    presence : over units; None where there is one only.
    intervals : name of a figure -> bootstrap interval.  drawn : the drawn units: "file", "plot" or "block".
    confusions : (found class, true class) -> pairs that match except for their class.
    duplicates : false positives on individuals that another detection has.
    merged : false negatives whose place has a detection of another truth.
    ignored : truths that don't count.  absorbed : detections that match only those; they count as neither.
    outside : detections outside completely annotated ground, not judged.
    notes : for the user.  judged : image by image.
    """

    criterion: str
    rates: Rates
    classes: tuple[ClassResult, ...]
    units: tuple[UnitRates, ...]
    unit: str
    sizes: tuple[SizeResult, ...]
    ap: MeanAveragePrecision | None
    count: CountError
    position: PositionError
    presence: Presence | None
    intervals: Mapping[str, Interval]
    drawn: str
    confusions: Mapping[tuple[str, str], int]
    duplicates: int
    merged: int
    ignored: int
    absorbed: int
    outside: int
    notes: tuple[Note, ...]
    judged: tuple[JudgedImage, ...]

    def to_dict(self) -> dict[str, Any]:
        """All figures, JSON-able; undefined ones are None."""
        table: dict[str, Any] = {
            "ecodetect": __version__,
            "criterion": self.criterion,
            **_rates(self.rates),
            "ap": _plain(self.ap),
            "count": _plain(self.count),
            "position": _plain(self.position),
            "presence": _presence(self.presence),
            "intervals": {name: _plain(each) for name, each in self.intervals.items()},
            "drawn": self.drawn,
            "classes": [
                {"name": c.name, **_rates(c.rates), "ap": _plain(c.ap), "count": _plain(c.count),
                 "position": _plain(c.position)}
                for c in self.classes
            ],
            "unit": self.unit,
            "units": [{"name": each.name, **_rates(each.rates)} for each in self.units],
            "sizes": [
                {"low": s.low, "high": _number(s.high), "unit": s.unit, **_rates(s.rates),
                 "count": _plain(s.count)}
                for s in self.sizes
            ],
            "confusions": [
                {"found": found, "true": true, "n": n} for (found, true), n in self.confusions.items()
            ],
        }  # fmt: skip
        for name in ("duplicates", "merged", "ignored", "absorbed", "outside"):
            table[name] = getattr(self, name)
        return {**table, "notes": [note.to_json() for note in self.notes]}

    def errors(self) -> Stream:
        """Each detection and each missed truth as a feature, for `formats.write`.

        Columns: `label` (true, false, missed or unjudged), `class`, `score`, `why` (duplicate, merged, other
        class; ignored or outside), `value` (what the criterion compared, of pairs), `id` and `source`. Where
        points meet shapes, all features are centre points: a GIS draws a layer of one kind in one style.
        """
        first = self.judged[0].pair.grid
        one = len(self.judged) == 1
        geometry = np.concatenate(
            [side.geometry for each in self.judged for side in (each.pair.detections, each.pair.truths)]
        )
        kind = geometry_type(geometry)
        columns = {"id": "str", "label": "str", "score": "float", "class": "str", "why": "str",
                   "value": "float", "source": "str"}  # fmt: skip
        layers = (each.errors() for each in self.judged)
        if kind == "Unknown":
            kind = "Point"
            layers = (replace(layer, geometry=shapely.points(centres(layer.geometry))) for layer in layers)
        metadata = {"ecodetect": __version__, "criterion": self.criterion}
        return Stream(
            layers,
            kind,
            columns,
            grid=first if one else None,
            crs=first.crs,
            classes=("true", "false", "missed", "unjudged"),
            metadata=metadata,
        )

    def draw_errors(self, path: str | os.PathLike[str], *, most: int = 60) -> None:
        """Draw cut-outs of the worst errors: the surest false positives, then the largest false negatives.

        Raises UserError where there are no rasters to cut them from.
        """
        draw_worst(self.judged, self.criterion, path, most=most)


def _plain(result: Any) -> Any:
    """A dataclass, JSON-able."""
    if result is None:
        return None
    return {name: _number(value) for name, value in dataclasses.asdict(result).items()}


def _named(result: Any, *names: str) -> dict[str, Any]:
    return {name: _number(getattr(result, name)) for name in names}


def _presence(table: Presence | None) -> dict[str, Any] | None:
    if table is None:
        return None
    return {**_plain(table), **_named(table, "n", "sensitivity", "specificity", "accuracy")}


def _rates(rates: Rates) -> dict[str, Any]:
    return {**_plain(rates), **_named(rates, "n_detections", "n_truths", "precision", "recall", "f1")}


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
