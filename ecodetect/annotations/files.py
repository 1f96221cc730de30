"""The features of each image, from a file about one or many images or from a folder of such files.

`train`, `check` and `evaluate` ask here which features belong to an image, so all three read the same files
the same way. The caller decides which images there are and what their annotations mean.
"""

from __future__ import annotations

import os
from pathlib import Path

from ecodetect.annotations.annotation_file import AnnotationFile
from ecodetect.annotations.annotation_folder import AnnotationFolder
from ecodetect.annotations.file_names import PICTURES, features_in
from ecodetect.annotations.object_masks import ObjectMasks
from ecodetect.errors import LayerError
from ecodetect.formats import files as formats


def opened(
    path: str | os.PathLike[str],
    *,
    layer: str | None = None,
    are_detections: bool = False,
    names_from: str | os.PathLike[str] | None = None,
) -> AnnotationFiles:
    """A file of features, or a folder with a file (or masks) for each image.

    layer : which layer, in a file with several.
    are_detections : in a folder that holds both, read the outputs of scans, not the annotations.
    names_from : as `formats.read` takes it.
    Raises LayerError where there is no file, or no file with features.
    """
    source, layer = formats.source_of(path, layer)
    if source.is_dir() and ObjectMasks.are_in(source):
        return ObjectMasks(source)
    if source.is_dir() and len(files := sorted(source.glob("instances_*.json"))) == 1:
        return AnnotationFile(files[0], layer, names_from=names_from)
    if source.is_dir() and source.suffix.lower() not in formats.suffixes(writing=False):
        files = [file for file in features_in(source) if file.suffix.lower() not in PICTURES]
        if len(files) == 1 and _is_of_several(files[0]):
            return AnnotationFile(files[0], layer, names_from=names_from)
        return AnnotationFolder(source, are_detections=are_detections)
    if not source.exists():
        raise LayerError(f"{source} doesn't exist.")
    return AnnotationFile(source, layer, names_from=names_from)


AnnotationFiles = AnnotationFile | AnnotationFolder | ObjectMasks


def _is_of_several(path: Path) -> bool:
    """Whether a file names several images, like exports of CVAT and Label Studio."""
    try:
        return len(AnnotationFile(path).names) > 1
    except LayerError:
        return False
