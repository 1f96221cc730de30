"""Labels of both sides: which are compared with each other, and which are ignored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.annotations.agreement import are_individuals, means_one_of
from ecodetect.annotations.class_names import key
from ecodetect.errors import UserError
from ecodetect.evaluation.pairing import Pair, Pairs
from ecodetect.matching import Flags, Rows, centred_in


def is_ignored(pair: Pair, labels: Sequence[str], *, keep_spelling: bool = False) -> Flags:
    """Which truths are doubtful, on doubtful ground, at the edge, or outside completely annotated ground."""
    truths = pair.truths
    flags = truths.ignore | means_one_of(truths.label, labels, keep_spelling=keep_spelling)
    if pair.plots is not None:
        flags |= pair.plots.holding(truths.xy) < 0
    if pair.edge is not None:
        flags |= shapely.intersects(shapely.points(truths.xy), pair.edge)
    return flags | centred_in(truths.geometry, pair.ignored)


def class_names(pairs: Pairs, ignored: Sequence[Flags], *, keep_spelling: bool = False) -> tuple[str, ...]:
    """Names of the classes to compare; empty where classes can't or needn't be compared.

    Objects without a class, on either side, are compared by place only. Names of individuals aren't classes.
    """
    as_one = str if keep_spelling else key
    truths = Counter(
        str(label)
        for pair, flags in zip(pairs, ignored, strict=True)
        for label in filter(None, pair.truths.label[~flags].tolist())
    )
    detections = Counter(
        str(label) for pair in pairs for label in filter(None, pair.detections.label.tolist())
    )
    true, found = ({as_one(label): label for label in reversed(side)} for side in (truths, detections))
    if true.keys() & found.keys():
        return tuple(
            dict.fromkeys([*sorted(true.values()), *(found[k] for k in sorted(found) if k not in true)])
        )
    if len(true) > 1 and len(found) > 1 and not any(map(are_individuals, (truths, detections))):
        raise UserError(
            f"Detections and annotations have no class in common: {listed(found.values())} and"
            f" {listed(true.values())}; is the class in another column?",
            parameter="class_column",
        )
    return ()


def listed(words: Iterable[str], most: int = 5) -> str:
    """The first few in alphabetical order, and the number of the others."""
    names = sorted(words)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def class_numbers(labels: NDArray[np.object_], names: tuple[str, ...]) -> Rows:
    """Position of each label (N,) in `names`, as `class_names` gives them; -1 for others, 0 for no names."""
    if not names:
        return np.zeros(len(labels), np.int64)
    # The exact spelling first: with separate spellings several names have one key.
    exact = {name: index for index, name in enumerate(names)}
    alike = {key(name): index for index, name in enumerate(names)}
    every = {label: exact.get(label, alike.get(key(label), -1)) for label in set(labels.tolist())}
    return np.array([every[label] for label in labels.tolist()], np.int64)
