"""Notes for readers of the figures: what was judged and what wasn't."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import shapely

from ecodetect.bundle.footprint import known_there
from ecodetect.evaluation.criterion import Criterion
from ecodetect.evaluation.judging import FALSE, JudgedImage
from ecodetect.evaluation.labels import listed
from ecodetect.evaluation.pairing import Pairs
from ecodetect.formats.image_matching import base_name
from ecodetect.notes import Note
from ecodetect.wording import counted


def remarks(
    judged: Sequence[JudgedImage], names: tuple[str, ...], pairs: Pairs, criterion: Criterion, *, has_ap: bool
) -> Iterator[Note]:
    """Notes in addition to those of the files' readers."""
    found = {str(label) for each in judged for label in each.pair.detections.label} - {""}
    true = {str(label) for each in judged for label in each.pair.truths.label[each.counted]} - {""}
    if not names and found and true:
        own, there = listed(found), listed(true)
        text = f"Classes aren't compared: the detections are {own}, the annotations {there}."
        yield Note("classes-not-compared", text, kind="choice")
    unknown = sum(int(np.count_nonzero(each.pair.truths.label[each.counted] == "")) for each in judged)
    unnamed = sum(int(np.count_nonzero(each.pair.detections.label == "")) for each in judged)
    for count, what in ((unknown, "annotation"), (unnamed, "detection")):
        if count and names:
            text = f"{counted(count, what)} without a class: compared by place, not by class."
            yield Note("class-unknown", text, kind="choice")
    if pairs.unjudged:
        text = (
            f"Not judged, because the annotations don't name them: {_images(pairs.unjudged)} with detections;"
            " if they are empty, say so."
        )
        yield Note("images-unjudged", text, kind="doubt", parameter="empty_images")
    if pairs.unsearched:
        text = (
            f"Not judged, because nothing was searched there: {_images(pairs.unsearched)} with annotations."
        )
        yield Note("images-unsearched", text, kind="doubt")
    if has_ap and pairs.lowest_score not in (None, 0, {}):
        text = f"The detections were cut at a score of {pairs.lowest_score}, so AP is a lower bound."
        yield Note("scores-cut", text, kind="doubt")
    if not has_ap and any(len(each.score) for each in judged):
        yield Note("scores-missing", "Detections without a score have no AP.")
    yield from _trained(judged, pairs)
    yield from _beyond(judged)
    widened = sum(int(np.count_nonzero(each.pair.truths.accuracy_m[each.counted] > 0)) for each in judged)
    if widened and criterion.kind == "distance":
        text = f"For {counted(widened, 'annotation')} with an accuracy, it is added to the allowed distance."
        yield Note("distance-widened", text)


def _trained(judged: Sequence[JudgedImage], pairs: Pairs) -> Iterator[Note]:
    """A doubt about truths on training ground: figures there say nothing about other places."""
    here = there = 0
    for each in judged:
        if pairs.trained_here and each.pair.grid.has_lonlat and len(each.counted):
            lonlat = each.pair.grid.to_lonlat(each.true_xy)
            here += int(np.count_nonzero(known_there([{"places": pairs.trained_here}], lonlat)))
        there += len(each.counted)
    if here:
        who = f"the model '{pairs.model}'" if pairs.model else "the model"
        text = (
            f"Within about 1 km of where {who} was trained: {here:,} of {there:,} individuals; expect worse"
            " elsewhere."
        )
        yield Note("trained-here", text, kind="doubt")


def _beyond(judged: Sequence[JudgedImage]) -> Iterator[Note]:
    """A doubt about false positives on ground that may not be annotated."""
    false = beyond = 0
    for each in judged:
        xy = each.xy[each.outcome == FALSE]
        if each.pair.plots is None and len(each.counted) > 2 and len(xy):
            hull = shapely.convex_hull(shapely.union_all(shapely.points(each.true_xy)))
            false += len(xy)
            beyond += int(np.count_nonzero(~shapely.intersects_xy(hull, xy[:, 0], xy[:, 1])))
    if beyond > 0.5 * false:
        text = (
            f"Outside the hull of the annotations: {beyond:,} of {false:,} false detections; if the truth is"
            " complete only somewhere, give its outline."
        )
        yield Note("false-beyond-truth", text, kind="doubt", parameter="area")


def _images(names: Sequence[str]) -> str:
    short = [base_name(name) for name in names]
    return f"{len(names):,} image{'s' if len(names) > 1 else ''} ({listed(short)})"
