"""Compares detections with annotations: reads, pairs, matches image by image, and pools."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ecodetect import metrics
from ecodetect.annotations.ignoring import check_labels, is_file
from ecodetect.evaluation.criterion import Criterion, completed
from ecodetect.evaluation.judging import ABSORBED, OUTSIDE, JudgedImage, judge
from ecodetect.evaluation.labels import class_names, is_ignored
from ecodetect.evaluation.pairing import PairingOptions, Pairs, paired
from ecodetect.evaluation.pooling import (
    by_block,
    by_class,
    by_size,
    by_unit,
    counted,
    intervals,
    pooled,
    unit_of_length,
)
from ecodetect.evaluation.remarks import remarks
from ecodetect.evaluation.report import Evaluation
from ecodetect.matching import centred_in, centres
from ecodetect.models import choosing as models
from ecodetect.notes import Note

_FEWEST_UNITS = 10  # with fewer files or plots, the bootstrap draws blocks of ground


def evaluate(
    detections: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    *,
    image: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    criterion: Criterion | None = None,
    ignore: Sequence[str] = (),
    area: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    seed: int = 0,
    **asked: Any,
) -> Evaluation:
    """Compare detections with annotations.

    Parameters
    ----------
    detections, annotations : str or path-like
        Files that `formats` reads, about one image or many, or folders with a file for each image.
    image : str, path-like or several, optional
        Raster, folder or pattern; needed where one side is in pixels and the other in map coordinates.
    criterion : Criterion, optional
        Default, by geometry: points by the radius or accuracy of each annotation, shapes by an IoU of 0.5,
        points and shapes by lying inside.
    ignore : sequence of str
        Class labels, or files of shapes, that count neither as true nor as false positives. So do annotations
        with a yes in a column `ignore` or `iscrowd`.
    area : str or path-like, optional
        Polygons where annotations are complete; several are plots. Nothing outside is judged. "image": the
        whole image, as by default.
    model : str or path-like, optional
        The bundle that made the detections, if their file doesn't state where it was trained.
    seed : int
        Random seed of the bootstrap.
    asked : the other fields of `PairingOptions`.

    Raises
    ------
    UserError
        In one sentence, when something can't be read, or can't be paired.
    """
    files = [each for each in ignore if is_file(each)]
    images = [image] if isinstance(image, (str, os.PathLike)) else list(image)
    complete = None if area is None or area == "image" else os.fspath(area)
    options = PairingOptions(ignore=tuple(files), area=complete, **asked)
    card = None if model is None else models.card(model)
    pairs = paired(detections, annotations, images, options)
    if card is not None:
        cells = [place for entry in card.trained_on for place in entry.get("places", ())]
        pairs = replace(pairs, model=card.name, trained_here=tuple(cells))
    labels = [each for each in ignore if each not in files]
    there = [label for pair in pairs for label in pair.truths.label.tolist()]
    check_labels(labels, there, keep_spelling=options.keep_spelling)
    ignored = [is_ignored(pair, labels, keep_spelling=options.keep_spelling) for pair in pairs]
    pairs = _with_doubtful(_with_outside(pairs))
    chosen = completed(criterion, pairs)
    names = class_names(pairs, ignored, keep_spelling=options.keep_spelling)
    judged = [judge(pair, flags, chosen, names) for pair, flags in zip(pairs, ignored, strict=True)]
    return _summed(judged, names, pairs, chosen, seed)


def _with_outside(pairs: Pairs) -> Pairs:
    """Pairs with a note on annotations outside completely annotated ground."""
    outside = [
        pair.plots.holding(centres(pair.truths.geometry)) < 0 for pair in pairs if pair.plots is not None
    ]
    count, total = (sum(map(each, outside)) for each in (np.count_nonzero, len))
    if not count:
        return pairs
    text = f"{count} of {total} annotations lie outside completely annotated ground and aren't judged."
    return replace(pairs, notes=(*pairs.notes, Note("outside-complete", text, kind="choice")))


def _with_doubtful(pairs: Pairs) -> Pairs:
    """Pairs with a note on annotations in shapes to ignore."""
    inside = [centred_in(pair.truths.geometry, pair.doubtful) for pair in pairs]
    count, total = (sum(map(each, inside)) for each in (np.count_nonzero, len))
    if not count:
        return pairs
    text = f"{count} of {total} annotations lie in shapes to ignore and aren't judged."
    return replace(
        pairs, notes=(*pairs.notes, Note("inside-ignored", text, kind="choice", parameter="ignore"))
    )


def _summed(
    judged: Sequence[JudgedImage], names: tuple[str, ...], pairs: Pairs, criterion: Criterion, seed: int
) -> Evaluation:
    """All images together."""
    are_plots = sum(len(each.pair.plots) for each in judged if each.pair.plots is not None) > 1
    units, unknown = by_unit(judged, are_plots=are_plots)
    unit = "plot" if are_plots else "file"
    is_of_units = len(units) >= _FEWEST_UNITS
    parts = [each.rates for each in units]
    counts = [[each.true_positives, each.false_positives, each.false_negatives] for each in parts]
    n_found, n_true = [each.n_detections for each in parts], [each.n_truths for each in parts]
    has_score = all(np.isfinite(each.score).all() for each in judged) and any(len(e.score) for e in judged)
    has_truth = any(len(each.counted) for each in judged)
    has_ap = has_score or (has_truth and not any(len(each.score) for each in judged))
    classes = by_class(judged, names or ("all",), has_ap=has_ap, are_plots=are_plots)
    steps = np.concatenate([each.steps for each in judged])
    confusions = Counter(
        (names[found], names[real]) for each in judged for found, real in each.confused.tolist()
    )
    return Evaluation(
        criterion=_span([each.criterion for each in judged]),
        rates=pooled(parts),
        classes=classes,
        units=units,
        unit=unit,
        sizes=by_size(judged, are_plots=are_plots),
        ap=metrics.mean_average_precision([c.ap for c in classes if c.ap is not None]) if has_ap else None,
        count=counted(parts),
        position=metrics.position_error(steps, unit=unit_of_length(judged)),
        presence=metrics.presence(n_found, n_true, unknown) if len(units) > 1 else None,
        intervals=intervals(
            np.array(counts, np.int64) if is_of_units else by_block(judged), are_units=is_of_units, seed=seed
        ),
        drawn=unit if is_of_units else "block",
        confusions=dict(sorted(confusions.items())),
        duplicates=sum(int(np.count_nonzero(each.why == "duplicate")) for each in judged),
        merged=sum(int(np.count_nonzero(each.why_missed == "merged")) for each in judged),
        ignored=sum(int(each.n_doubtful.sum()) for each in judged),
        absorbed=sum(int(np.count_nonzero(each.outcome == ABSORBED)) for each in judged),
        outside=sum(int(np.count_nonzero(each.outcome == OUTSIDE)) for each in judged),
        notes=(*pairs.notes, *remarks(judged, names, pairs, criterion, has_ap=has_ap)),
        judged=tuple(judged),
    )


def _span(criteria: Sequence[str]) -> str:
    """One criterion in words; images may have different limits."""
    return " or ".join(dict.fromkeys(each for each in criteria if each != "distance")) or criteria[0]
