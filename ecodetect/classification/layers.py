"""A species for each object of a layer: what `ecodetect classify DETECTIONS IMAGE` does."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ecodetect.annotations.laying import labels_of, placed
from ecodetect.classification.answering import Answers, ClassifierEnsemble
from ecodetect.classification.settings import ClassifyingSettings
from ecodetect.converting import PIXEL_FORMATS, stream_of
from ecodetect.cores import core_count
from ecodetect.errors import LayerError, already_there
from ecodetect.formats import files as formats
from ecodetect.grid import Floats
from ecodetect.layer import Layer, Stream
from ecodetect.notes import Note, merged
from ecodetect.version import __version__

_CACHE_BYTES = 64_000_000  # enough for a row of windows from a file of strips
_ONLY_LABELS = (".xml", ".txt")  # formats with one class for each object and no other columns
_NO_LABELS = (".tif", ".tiff", ".png")


@dataclass(frozen=True, slots=True)
class Classified:
    """The result of a classification.

    path : the written file.
    counts : class -> number of objects, in the order of the classifier's classes.
    unknown : number of objects where the raster has no data.
    models : names of the members.
    notes : for the user.
    """

    path: Path
    counts: Mapping[str, int]
    unknown: int
    models: tuple[str, ...]
    notes: tuple[Note, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "path": str(self.path),
            "models": list(self.models),
            "counts": dict(self.counts),
            "unknown": self.unknown,
            "notes": [note.to_json() for note in self.notes],
        }


def classify(
    detections: str | os.PathLike[str],
    image: str | os.PathLike[str],
    models: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    layer: str | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> Classified:
    """Classify each point, box or polygon of a layer and write the layer with the species.

    Parameters
    ----------
    detections : str or path-like
        Any file that `formats` reads, in any CRS, or in pixels of the raster (x right, y down); its columns
            are kept. A window around the centre of each object's bounding box is classified.
    image : str or path-like
        The raster. In a file about several images, only the rows of this one are classified.
    models : sequence of str or path-like
        One classifier, or several with the same classes that answer together.
    out : str or path-like
        The file to write; the suffix is the format. Pascal VOC and YOLO hold one class per object, so the
        species replaces the label.
    layer : str, optional
        Which layer, where `detections` has several.
    overwrite : bool
        Replace an existing file.
    settings : the fields of `ClassifyingSettings`.

    Returns
    -------
    Classified
        Scores in the columns `species_score`, … are calibrated probabilities in [0, 1].

    Raises
    ------
    UserError
        In one sentence, when something can't be read, doesn't fit together or can't be written.
    """
    target = Path(out)
    _check_target(target, overwrite=overwrite)
    asked = ClassifyingSettings(**settings)
    classifier = asked.classifier(models)
    seen = _seen(classifier, detections, layer, image, asked)
    stream, notes = _stream(seen, target, classifier, Path(detections).name, classifier.top(asked.top))
    written = formats.write(target, stream, overwrite=overwrite)
    unknown = int(np.count_nonzero(~seen.answers.known))
    if unknown:
        text = f"no species for {unknown} of {len(seen.found)} objects: it has no data there."
        notes.append(Note("nothing-to-see", text, about=seen.raster["source"], kind="doubt"))
    counts = Counter(seen.answers.first().tolist())
    return Classified(
        path=written.path,
        counts={each: counts[each] for each in seen.answers.names if counts[each]},
        unknown=unknown,
        models=tuple(member.card.name for member in classifier.members),
        notes=merged([*seen.notes, *notes, *written.notes]),
    )


def _check_target(target: Path, *, overwrite: bool) -> None:
    """Raise UserError, before work starts, where a layer with species can't be written."""
    formats.writable(target)
    if target.suffix.lower() in _NO_LABELS:
        raise LayerError(f"{target} has no place for a species: a label image only numbers its objects.")
    if target.exists() and not overwrite:
        raise already_there(target)


@dataclass(frozen=True, eq=False, slots=True)
class _Seen:
    """Objects of a layer with what the classifier says of them.

    found : the layer as it was read.  placed : the same in pixels of the raster.
    raster : its name and fingerprint.
    """

    found: Layer
    placed: Layer
    answers: Answers
    raster: Mapping[str, str]
    notes: tuple[Note, ...]


def _seen(
    classifier: ClassifierEnsemble,
    detections: str | os.PathLike[str],
    layer: str | None,
    image: str | os.PathLike[str],
    asked: ClassifyingSettings,
) -> _Seen:
    """The objects of a layer on a raster, classified."""
    with asked.opened(image) as raster:
        found = formats.read(detections, layer=layer, grid=raster.grid, image=os.fspath(image))
        geometry, _, _ = placed(found, raster.grid, name=Path(detections).name)
        with raster.env(cache_bytes=_CACHE_BYTES, threads=core_count()):
            seeing = classifier.seeing(raster, asked.values)
            answers = seeing.at(centres(geometry))
        facts = {"source": raster.name, "fingerprint": raster.fingerprint}
        notes = (*raster.notes, *seeing.notes, *found.notes)
    return _Seen(found, Layer(geometry, grid=raster.grid), answers, facts, notes)


def _stream(
    seen: _Seen, target: Path, classifier: ClassifierEnsemble, name: str, top: int
) -> tuple[Stream, list[Note]]:
    """What goes into the file, and notes on it.  name : of the layer's file.  top : answers per object."""
    notes = []
    found, answers, suffix = seen.found, seen.answers, target.suffix.lower()
    columns = {**found.columns, **answers.columns(top)}
    if suffix in _ONLY_LABELS:
        columns["label"] = _as_labels(answers, labels_of(found, name))
        text = "it holds one class for each object, so species replace the labels."
        notes.append(Note("labels-replaced", text, about=target.name))
    facts = _facts(found, suffix, seen.raster, {**classifier.described(), "answers": list(answers.names)})
    on_map = found.crs is not None and suffix not in PIXEL_FORMATS
    stream = stream_of(replace(found if on_map else seen.placed, columns=columns, metadata=facts))
    return replace(stream, classes=answers.names) if suffix in _ONLY_LABELS else stream, notes


def _facts(
    found: Layer, suffix: str, seen: Mapping[str, str], classified: Mapping[str, Any]
) -> dict[str, Any]:
    """The metadata of a layer with species.  seen : the raster.  classified : the classifiers and answers."""
    return {
        "ecodetect": __version__,
        **({"rasters": [{"source": seen["source"]}]} if suffix in PIXEL_FORMATS else {}),
        **{key: value for key, value in found.metadata.items() if key not in ("key", "frame")},
        "classified": {**classified, "raster": seen},
    }


def centres(geometry: NDArray[np.object_]) -> Floats:
    """Centres of the bounding boxes, (N, 2); NaN where there is none."""
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    middle: Floats = (bounds[:, :2] + bounds[:, 2:]) / 2
    return middle


def _as_labels(answers: Answers, before: NDArray[np.object_]) -> NDArray[np.object_]:
    """The first answers; where there is none, the old label."""
    label = answers.first()
    label[~answers.known] = before[~answers.known]
    return label
