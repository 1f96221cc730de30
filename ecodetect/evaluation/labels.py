"""Labels of both sides: which are compared with each other, and which are neither right nor wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect import matching
from ecodetect.errors import UserError
from ecodetect.evaluation.pairing import Pair, Pairs
from ecodetect.matching import Flags, Rows


def is_ignored(pair: Pair, labels: Sequence[str]) -> Flags:
    """Truths that are doubtful, or whose centre lies outside where the truth is complete, or at the edge."""
    truths = pair.truths
    flags = truths.ignore | np.isin(truths.label.astype(str), list(labels))
    if pair.plots is not None:
        flags |= pair.plots.holding(matching.centres(truths.geometry)) < 0
    if pair.edge is not None:
        flags |= shapely.intersects(shapely.points(matching.centres(truths.geometry)), pair.edge)
    return flags


def class_names(pairs: Pairs, ignored: Sequence[Flags]) -> tuple[str, ...]:
    """Names of the classes to compare; one, "all", where classes can't or needn't be compared."""
    true: dict[str, str] = {}
    for pair, flags in zip(pairs, ignored, strict=True):
        for label in pair.truths.label[~flags].tolist():
            true.setdefault(_key(label), label)
    found: dict[str, str] = {}
    for pair in pairs:
        for label in pair.detections.label.tolist():
            found.setdefault(_key(label), label)
    if true.keys() & found.keys() - {""}:
        return tuple(
            dict.fromkeys([*sorted(true.values()), *(found[k] for k in sorted(found) if k not in true)])
        )
    if len(true) > 1 and len(found) > 1:
        raise UserError(
            f"Detections and annotations have no class in common: {', '.join(sorted(found.values()))} and"
            f" {', '.join(sorted(true.values()))}; is --class-column right?"
        )
    return ("all",)


def class_numbers(labels: NDArray[np.object_], names: tuple[str, ...]) -> Rows:
    """Position of each label (N,) in `names`, as `class_names` gives them; -1 for others."""
    if names == ("all",):
        return np.zeros(len(labels), np.int64)
    number = {_key(name): index for index, name in enumerate(names)}
    return np.array([number.get(_key(label), -1) for label in labels.tolist()], np.int64)


def _key(label: object) -> str:
    return str(label).strip().casefold()
