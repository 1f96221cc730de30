"""A preview of training data: annotations laid on their rasters, counted, measured, compared with a model.

Nothing is trained. The facts are a JSON-able dict; `ecodetect check` puts them into words.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from ecodetect.annotations.annotated_raster import AnnotatedRaster, gsds, object_px
from ecodetect.annotations.class_names import key
from ecodetect.annotations.contract import Contract, class_of
from ecodetect.annotations.dataset import Dataset
from ecodetect.annotations.options import AnnotationOptions
from ecodetect.annotations.sources import Gathered
from ecodetect.annotations.splits import Split, split
from ecodetect.bundle.card import Card
from ecodetect.cores import core_count
from ecodetect.detections import Detections
from ecodetect.errors import UserError
from ecodetect.grid import Floats
from ecodetect.notes import Note
from ecodetect.pictures.map import draw_map
from ecodetect.raster.bands import lacking, stand_ins
from ecodetect.training.beginning import Beginning, begin, check_classes
from ecodetect.training.planning import LEAST_STEPS, MOST_STEPS, PASSES, STEP_PX
from ecodetect.training.settings import TrainingSettings

CHIP_PX = 256  # size of the counted chips; training chooses its own
# On one core, measured with the encoder of MobileNetV2, which our models have: 0.25 to 0.3 Mpx/s on two.
# Other networks take a third to ten times as long.
_SECONDS_PER_MPX = 7.5
_MEMORY_MB = 1500.0  # of torch and a batch of 0.3 Mpx


def check(
    paths: Sequence[str | os.PathLike[str]],
    asked: AnnotationOptions | None = None,
    *,
    picture: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Check rasters and annotations as training data, without training.

    Parameters
    ----------
    paths, asked : as in `train`.
    picture : PNG or JPEG to draw the annotations into, of the raster that has most of them.
    settings : fields of `TrainingSettings`, as in `train`. The card of a bundle to fine-tune is compared with
        the data.

    Returns
    -------
    dict
        `problems` are the errors that training would raise; empty if it would start. `notes` are objects of
        `Note`.

    Raises
    ------
    UserError
        When the check itself is impossible: files that can't be read, annotations off the raster.
    """
    notes: list[Note] = []
    how = TrainingSettings(**settings)
    begun = begin(paths, asked, how, notes.append)
    gathered = begun.gathered
    sources = gathered.sources
    card = None if how.model is None or begun.start is None else begun.start.card
    problems: list[UserError] = []
    data, found = None, None
    with _refusal_in(problems):
        seen, chosen = begun.contract()
        notes += chosen
        data = begun.dataset(seen)
    with _refusal_in(problems):
        found = split(sources, by=how.split_by, seed=how.seed)
    with _refusal_in(problems):
        notes += () if data is None else _unlearnable(begun, data, found, how.split_by)
    if card is not None and not _is_seen_as_is(card, sources):
        text = "The model doesn't fit these rasters as it is; training would adapt it."
        notes.append(Note("model-misfit", text))
    return {
        "rasters": _rasters(sources, gathered),
        "annotations": _annotations(sources),
        "sizes": _sizes(sources),
        "complete": _complete(sources),
        "seen_at": None if data is None else _seen(data),
        "split": None if found is None else _split(found),
        "cost": None if data is None else _cost(data, found),
        "model": None if card is None else _compared(card, sources),
        "picture": None if picture is None else _draw(sources, found, picture),
        "notes": notes,
        "problems": problems,
    }


@contextmanager
def _refusal_in(problems: list[UserError]) -> Iterator[None]:
    """Collects errors that training would raise, as problems."""
    try:
        yield
    except UserError as error:
        problems.append(error)


def _unlearnable(begun: Beginning, data: Dataset, found: Split | None, split_by: str) -> Iterator[Note]:
    """Notes on what can't be learned; raises UserError where training would."""
    sizes = [np.sqrt(np.prod(data.objects(number).size, axis=1)) for number in data.used]
    begun.card_options(np.concatenate(sizes), data)
    if found is None:
        return
    sides = (data.limited(found.training), data.limited(found.validation))
    note = check_classes(sides[0].statistics(), sides[1].statistics(), split_by)
    if note is not None:
        yield note


def _is_seen_as_is(card: Card, sources: Sequence[AnnotatedRaster]) -> bool:
    """Whether a model can use all rasters without being adapted."""
    own = Contract.of(card)
    return all(stand_ins(own.bands, source.bands) is not None for source in sources) and (
        own.unit == "px" or all(source.grid.gsd is not None for source in sources)
    )


# -- facts -------------------------------------------------------------------------------------------------


def _rasters(sources: Sequence[AnnotatedRaster], gathered: Gathered) -> dict[str, Any]:
    own = gsds(sources)
    sizes = Counter((source.grid.width, source.grid.height) for source in sources)
    kinds = Counter(source.bands for source in sources)
    return {
        "count": len(sources),
        "names": [source.name for source in sources],
        "without_annotations": list(gathered.unmarked),
        "sizes_px": [[width, height, count] for (width, height), count in sizes.most_common()],
        "gsd_m": [min(own), max(own)] if len(own) == len(sources) else None,
        "bands": [{"bands": list(bands), "rasters": count} for bands, count in kinds.most_common()],
    }


def _annotations(sources: Sequence[AnnotatedRaster]) -> dict[str, Any]:
    dropped: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    ignored = 0
    for source in sources:
        dropped.update(source.annotations.dropped)
        kept = source.kept
        ignored += int(np.count_nonzero(~kept))
        classes.update(class_of(str(label)) for label in source.annotations.label[kept])
        area = shapely.area(source.annotations.geometry[kept])
        kinds.update({"shapes": int(np.count_nonzero(area > 0)), "points": int(np.count_nonzero(area == 0))})
    accuracy = np.concatenate([source.annotations.accuracy_m[source.kept] for source in sources])
    accuracy = accuracy[np.isfinite(accuracy)]
    return {
        "kept": classes.total(),
        "ignored": ignored,
        "ignored_shapes": sum(len(source.ignored) for source in sources),
        "left_out": dict(dropped),
        "classes": dict(sorted(classes.items())),
        "points": kinds["points"],
        "shapes": kinds["shapes"],
        "with_accuracy": len(accuracy),
        "accuracy_m": float(np.median(accuracy)) if len(accuracy) else None,
        "empty_rasters": sum(not source.kept.any() for source in sources),
    }


def _sizes(sources: Sequence[AnnotatedRaster]) -> dict[str, Any]:
    """Percentiles 5, 50 and 95 of the widths, in metres and in the rasters' own pixels."""
    in_px = np.concatenate([source.size_px[source.kept] for source in sources])
    in_m = np.concatenate(
        [
            source.size_px[source.kept] * (np.nan if (gsd := source.grid.gsd_mean) is None else gsd)
            for source in sources
        ]
    )
    return {"known": int(np.isfinite(in_px).sum()), "px": _three(in_px), "m": _three(in_m)}


def _three(values: Floats) -> list[float] | None:
    known = values[np.isfinite(values)]
    return [float(value) for value in np.percentile(known, (5, 50, 95))] if len(known) else None


def _complete(sources: Sequence[AnnotatedRaster]) -> dict[str, Any]:
    """Where annotation counts as complete, and the share of the rasters."""
    known = [0.0 if source.complete is None else float(source.complete.shape.area) for source in sources]
    whole = sum(source.grid.window.area for source in sources)
    hectares = [
        area * gsd[0] * gsd[1] / 10_000
        for area, source in zip(known, sources, strict=True)
        if (gsd := source.grid.gsd) is not None
    ]
    outside = 0
    for source in sources:
        xy = source.xy
        outside += len(xy) if source.complete is None else int((~source.complete.contains(xy)).sum())
    return {
        "by": dict(Counter(source.complete_by for source in sources)),
        "share": sum(known) / whole,
        "area_ha": sum(hectares) if len(hectares) == len(sources) else None,
        "annotations_outside": outside,
    }


def _seen(data: Dataset) -> dict[str, Any]:
    seen, statistics = data.contract, data.statistics()
    sides = [gsd for grid in data.grids if (gsd := grid.gsd_mean) is not None]
    return {
        "bands": list(seen.bands),
        "unit": seen.unit,
        "gsd": seen.gsd,
        "read_at_m": [min(sides), max(sides)] if len(sides) == len(data.grids) else None,
        "scaling": seen.scaling.mode,
        "size_px": statistics.size_px,
        "spacing_px": statistics.spacing_px,
        "chip_px": CHIP_PX,
        "chips": len(data.places(CHIP_PX)),
    }


def _split(found: Split) -> dict[str, Any]:
    return {
        "method": found.method,
        "training": {"rasters": len(found.training), "annotations": found.objects[0]},
        "validation": {"rasters": len(found.validation), "annotations": found.objects[1]},
        "between": found.objects[2],
    }


def _cost(data: Dataset, found: Split | None) -> dict[str, Any]:
    """Rough seconds and memory of training a small network on this machine's processor."""
    side = data if found is None else data.limited(found.training)
    mpx = len(side.places(CHIP_PX)) * PASSES * CHIP_PX**2 / 1e6
    least, most = LEAST_STEPS * STEP_PX / 1e6, MOST_STEPS * STEP_PX / 1e6
    cores = core_count()
    return {
        "seconds": min(max(mpx, least), most) * _SECONDS_PER_MPX / cores,
        "cores": cores,
        "memory_mb": _MEMORY_MB,
        "rough": True,
    }


def _compared(card: Card, sources: Sequence[AnnotatedRaster]) -> dict[str, Any]:
    """How the data fit the card, in sentences."""
    misfits = []
    for source in sources:
        if stand_ins(card.bands, source.bands) is None:
            misfits.append(
                f"It needs bands {', '.join(card.bands)}; {source.name} {lacking(card.bands, source.bands)}"
            )
            break
    own = gsds(sources)
    unit_m = {"m": 1.0, "um": 1e-6, "px": None}[card.unit]
    if unit_m is not None and not own:
        misfits.append(f"It works at {card.gsd:g} {card.unit} per pixel, and the rasters don't say theirs.")
    if unit_m is not None and own and card.gsd_range is not None:
        low, high = (bound * unit_m for bound in card.gsd_range)
        if min(own) < 0.98 * low or max(own) > 1.02 * high:
            misfits.append(
                f"It is meant for {low:g} to {high:g} m per pixel; the rasters have {min(own):.3g}"
                + (f" to {max(own):.3g} m." if max(own) > 1.02 * min(own) else " m.")
            )
    labels = {class_of(str(label)) for source in sources for label in source.annotations.label[source.kept]}
    known = {key(name) for name in card.classes}
    strange = sorted(label for label in labels if key(label) not in known)
    if strange:
        misfits.append(
            f"It knows {', '.join(card.classes)}; the annotations have {', '.join(strange[:8])} too."
            if len(strange) < len(labels)
            else f"It knows {', '.join(card.classes)}; the annotations have {', '.join(strange[:8])}."
        )
    sizes = _sizes(sources)["px" if unit_m is None else "m"]
    if sizes is not None and sizes[2] > card.largest * (unit_m or 1.0):
        unit = "px" if unit_m is None else "m"
        misfits.append(
            f"Its largest object is {card.largest * (unit_m or 1.0):g} {unit}; one in twenty here is wider"
            f" than {sizes[2]:.3g} {unit}."
        )
    return {"name": card.name, "detector": card.detector, "fits": not misfits, "misfits": misfits}


# -- picture -----------------------------------------------------------------------------------------------


def _draw(
    sources: Sequence[AnnotatedRaster], found: Split | None, path: str | os.PathLike[str]
) -> Mapping[str, str]:
    """Draw annotations, ignored shapes and validation ground; faded where annotation isn't complete."""
    number = max(range(len(sources)), key=lambda row: len(sources[row].annotations))
    source = sources[number]
    radius = object_px([source]) / 2
    labels = sorted({class_of(str(label)) for label in source.annotations.label[source.kept]})
    number_of = {label: row for row, label in enumerate(labels)}
    classes = (*labels, "ignored", "validation ground")
    shapes: list[Any] = []
    rows: list[int] = []
    if found is not None and number in found.validation:
        ground = found.validation[number].counted.shape
        parts = list(shapely.get_parts(ground))
        shapes += parts
        rows += [len(labels) + 1] * len(parts)
    for shape in source.ignored:
        shapes.append(_drawn(shape, radius))
        rows.append(len(labels))
    marked = source.annotations
    for shape, own, label, kept in zip(
        marked.geometry, marked.radius_px, marked.label, source.kept, strict=True
    ):
        shapes.append(_drawn(shape, own if np.isfinite(own) else radius))
        rows.append(number_of[class_of(str(label))] if kept else len(labels))
    geometry = np.empty(len(shapes), dtype=object)
    geometry[:] = shapes
    drawn = Detections(
        source.grid, "polygon", geometry, np.ones(len(shapes)), np.array(rows, np.int64), classes
    )
    info = _INFO[source.complete_by]
    with source.open() as raster:
        draw_map(
            raster, [drawn], path, title=f"Annotations of {source.name}", area=source.complete, info=info
        )
    return {"file": str(Path(path)), "raster": source.name}


_INFO = {
    "polygons": "Faded: outside complete ground, unknown to training. Elsewhere empty ground is background.",
    "image": "Annotation counts as complete all over: empty ground is background.",
    "hull": "Faded: beyond the annotations, unknown to training. Inside, empty ground is background.",
    "nothing": "Annotation counts as complete nowhere: nothing is learned here.",
}


def _drawn(shape: shapely.Geometry, radius: float) -> shapely.Geometry:
    return shape if shape.geom_type in ("Polygon", "MultiPolygon") else shape.buffer(max(radius, 1.0))
