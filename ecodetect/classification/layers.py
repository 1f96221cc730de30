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
from ecodetect.bundle.values import ValueUnit
from ecodetect.classification.answering import Answers, Views, Vote, open_classifier
from ecodetect.converting import PIXEL_FORMATS, stream_of
from ecodetect.errors import LayerError, already_there
from ecodetect.formats import files as formats
from ecodetect.grid import Floats
from ecodetect.layer import Layer
from ecodetect.notes import Note, merged
from ecodetect.raster.reading import open_raster
from ecodetect.version import __version__

_CACHE_BYTES = 64_000_000  # as pictures: a row of windows from a file of strips
_ONLY_LABELS = (".xml", ".txt")  # formats with one class for each object and no other columns
_NO_LABELS = (".tif", ".tiff", ".png")


@dataclass(frozen=True, slots=True)
class Classified:
    """What came of a classification.

    path : the file written.
    counts : answer -> objects, in the order of the classifier's answers.
    unknown : objects where the raster has nothing to see.
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
    vote: Vote = "mean",
    views: Views = "none",
    top: int | None = None,
    bands: str | None = None,
    gsd_m: float | None = None,
    nodata: float | None = None,
    values: ValueUnit | None = None,
    device: str = "auto",
    allow_vrt: bool = False,
    overwrite: bool = False,
) -> Classified:
    """Give each point, box or polygon of a layer a species and write the layer with it.

    Parameters
    ----------
    detections : str or path-like
        Any file that `formats` reads, in any CRS; its columns are kept.
    image : str or path-like
        The raster to look at. In a file about several images, only the rows of this one are classified.
    models : sequence of str or path-like
        One classifier, or several with the same classes that answer together.
    out : str or path-like
        Where to; the suffix is the format. Pascal VOC and YOLO hold one class for each object: the species
        takes the place of its label.
    layer : str, optional
        Which layer, where `detections` has several.
    vote, views : see `Classifier` and `Member`.
    top : int, optional
        How many answers are written, 3 if there are as many.
    bands, gsd_m, nodata, allow_vrt : see `open_raster`.
    values : what counts as black and white in the raster; None: told by its values.

    Raises
    ------
    UserError
        In one sentence, where something can't be read, brought together or written.
    """
    target = Path(out)
    formats.writable(target)
    suffix = target.suffix.lower()
    if suffix in _NO_LABELS:
        raise LayerError(f"{target} has no place for a species: a label image only numbers its objects.")
    if target.exists() and not overwrite:
        raise already_there(target)
    classifier = open_classifier(models, vote=vote, views=views, device=device)
    count = classifier.top(top)
    with open_raster(image, bands=bands, gsd_m=gsd_m, nodata=nodata, allow_vrt=allow_vrt) as raster:
        found = formats.read(detections, layer=layer, grid=raster.grid, image=os.fspath(image))
        geometry, _, _ = placed(found, raster.grid, name=Path(detections).name)
        with raster.env(cache_bytes=_CACHE_BYTES, threads=os.cpu_count() or 1):
            seeing = classifier.seeing(raster, values)
            answers = seeing.at(centres(geometry))
        grid, name, fingerprint = raster.grid, raster.name, raster.fingerprint
        notes = [*raster.notes, *seeing.notes, *found.notes]
    written_in = {**found.columns, **answers.columns(count)}
    if suffix in _ONLY_LABELS:
        written_in["label"] = _as_labels(answers, labels_of(found, Path(detections).name))
        text = "it holds one class for each object, so species stand as labels."
        notes.append(Note("labels-replaced", text, about=target.name))
    facts = {key: value for key, value in found.metadata.items() if key not in ("key", "frame")}
    seen = {"source": name, "fingerprint": fingerprint}
    facts = {
        "ecodetect": __version__,
        **({"rasters": [{"source": name}]} if suffix in PIXEL_FORMATS else {}),
        **facts,
        "classified": {**classifier.described(), "answers": list(answers.names), "raster": seen},
    }
    if found.crs is not None and suffix not in PIXEL_FORMATS:
        made = replace(found, columns=written_in, metadata=facts)
    else:
        made = Layer(geometry, written_in, grid=grid, metadata=facts)
    stream = stream_of(made)
    if suffix in _ONLY_LABELS:
        stream = replace(stream, classes=answers.names)
    written = formats.write(target, stream, overwrite=overwrite)
    unknown = int(np.count_nonzero(~answers.known))
    if unknown:
        text = f"no species for {unknown} of {len(found)}: it shows nothing there."
        notes.append(Note("nothing-to-see", text, about=name, kind="doubt"))
    counts = Counter(answers.first().tolist())
    return Classified(
        path=written.path,
        counts={each: counts[each] for each in answers.names if counts[each]},
        unknown=unknown,
        models=tuple(member.card.name for member in classifier.members),
        notes=merged([*notes, *written.notes]),
    )


def centres(geometry: NDArray[np.object_]) -> Floats:
    """Centres of the bounding boxes, (N, 2); NaN where there is none."""
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    middle: Floats = (bounds[:, :2] + bounds[:, 2:]) / 2
    return middle


def _as_labels(answers: Answers, before: NDArray[np.object_]) -> NDArray[np.object_]:
    """The first answers; where there is none, what the label was."""
    label = answers.first()
    label[~answers.known] = before[~answers.known]
    return label
